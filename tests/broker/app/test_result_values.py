"""What comes back over the reply queue: values, exceptions, and what cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amqp_tasks.app import current_request
from amqp_tasks.errors import (
    BrokerConnectionError,
    MalformedMessage,
    RemoteError,
    ResultUnavailable,
)
from support.apps import MakeApp, RunWorker, Unforeseen, echo, fail
from support.raw import RawClient


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "张三", [1, [2]], {"a": {"b": None}}, "x" * 100_000])
def test_values_come_back_equal(make_app: MakeApp, run_worker: RunWorker, value: object) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)

    assert task.delay(value).get(5) == value


def test_a_builtin_exception_is_raised_as_itself_with_the_remote_traceback(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app()
    task = app.task(fail)
    run_worker(app)

    result = task.delay("key")

    with pytest.raises(KeyError) as caught:
        result.get(5)
    assert caught.value.args == ("k",)
    assert "in fail" in caught.value.__notes__[0]
    assert "in fail" in (result.traceback or "")
    assert (result.state, result.failed(), result.ready()) == ("FAILURE", True, True)
    assert isinstance(result.get(propagate=False), KeyError)


def test_an_exception_nobody_allowed_is_a_remote_error(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(fail)
    run_worker(app)

    with pytest.raises(RemoteError) as caught:
        task.delay("own").get(5)

    assert (caught.value.exc_type, caught.value.exc_args) == ("Unforeseen", ("u", 7))
    assert "in fail" in (caught.value.remote_traceback or "")


@pytest.mark.parametrize("how", ["setting", "throws"])
def test_an_allowed_exception_is_raised_as_itself(make_app: MakeApp, run_worker: RunWorker, how: str) -> None:
    app = make_app(result_exceptions=[Unforeseen] if how == "setting" else [])
    task = app.task(throws=(Unforeseen,) if how == "throws" else ())(fail)
    run_worker(app)

    with pytest.raises(Unforeseen) as caught:
        task.delay("own").get(5)

    assert caught.value.args == ("u", 7)


def test_another_processs_id_is_refused_with_the_reason(make_app: MakeApp) -> None:
    result = make_app().AsyncResult("made-elsewhere")

    with pytest.raises(ResultUnavailable, match="goes to the process that made the call"):
        result.get(1)
    with pytest.raises(ResultUnavailable):
        _ = result.state


def test_the_same_id_asks_for_the_same_result(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)

    result = task.delay(1)

    assert app.AsyncResult(result.id).get(5) == 1


def test_without_backend_the_setting_is_named(make_app: MakeApp) -> None:
    result = make_app(result_backend=None).send_task("t")

    with pytest.raises(ResultUnavailable, match="result_backend"):
        result.get(1)


def test_an_ignored_result_says_so(make_app: MakeApp) -> None:
    result = make_app().send_task("t", ignore_result=True)

    with pytest.raises(ResultUnavailable, match="ignore_result"):
        result.get(1)


def test_a_result_message_that_cannot_be_read_ends_the_wait(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    result = app.send_task("t")

    raw_client.publish(app.backend.reply_to(timeout=1), b"\x80\x04K\x01.", correlation_id=result.id)

    with pytest.raises(MalformedMessage, match="content-type"):
        result.get(5)


def test_a_hostile_exception_type_runs_nothing(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    result = app.send_task("t")
    hostile = {"exc_module": "os", "exc_type": "system", "exc_message": ["true"]}
    body = json.dumps({"task_id": result.id, "status": "FAILURE", "result": hostile})

    raw_client.publish(
        app.backend.reply_to(timeout=1),
        body.encode(),
        correlation_id=result.id,
        content_type="application/json",
        content_encoding="utf-8",
    )

    with pytest.raises(RemoteError, match="system"):
        result.get(5)


def test_children_and_parents_are_noted(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    leaf = app.task(echo)
    seen: list[Any] = []

    @app.task
    def leaf_of(depth: int) -> None:
        seen.append(current_request())

    @app.task
    def parent() -> str:
        return leaf.apply_async((1,), confirm=False, ignore_result=True).id

    run_worker(app)

    result = parent.delay()

    assert [child.id for child in (result.get(5), result.children)[1]] == [result.get(5)]


def test_a_result_exists_from_the_first_state_that_has_come(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    result = app.task(echo).delay(1)
    has_begun = result.exists()

    run_worker(app)
    result.get(5)

    assert (has_begun, result.exists(), app.AsyncResult(result.id).exists()) == (False, True, True)


@pytest.mark.parametrize("settings", [{}, {"result_backend": None}])
def test_a_result_that_cannot_be_known_here_does_not_exist(
    make_app: MakeApp, settings: dict[str, Any]
) -> None:
    assert not make_app(**settings).AsyncResult("made-elsewhere").exists()


@pytest.mark.parametrize("by_apply", [True, False])
def test_a_stored_eager_result_is_found_by_its_id_while_it_is_held(make_app: MakeApp, by_apply: bool) -> None:
    app = make_app(task_store_eager_result=True, task_always_eager=not by_apply)
    task = app.task(echo)

    result = task.apply(({"a": 1},)) if by_apply else task.delay({"a": 1})

    found = app.AsyncResult(result.id)
    assert (found.exists(), found.state, found.get(5)) == (True, "SUCCESS", {"a": 1})
    del found
    task_id = result.id
    del result
    assert not app.AsyncResult(task_id).exists()


def test_a_stored_eager_failure_is_raised_as_a_workers_would_be(make_app: MakeApp) -> None:
    app = make_app(task_store_eager_result=True)

    result = app.task(fail).apply(("own",))

    with pytest.raises(RemoteError) as caught:
        app.AsyncResult(result.id).get(5)
    assert caught.value.exc_args == ("u", 7)


@pytest.mark.parametrize(
    "options", [{}, {"store_eager_result": False}, {"ignore_result": True, "store_eager_result": True}]
)
def test_an_eager_result_is_not_stored_unless_the_task_says_so_and_it_is_wanted(
    make_app: MakeApp, options: dict[str, Any]
) -> None:
    app = make_app(task_store_eager_result=bool(options))
    task: Any = app.task

    result = task(**options)(echo).apply((1,))

    assert result.get() == 1
    assert not app.AsyncResult(result.id).exists()


def test_an_eager_result_that_cannot_be_stored_is_an_error_of_the_call(make_app: MakeApp) -> None:
    app = make_app(broker="amqp://127.0.0.1:1//", task_store_eager_result=True, task_publish_timeout=0.5)

    with pytest.raises(BrokerConnectionError):
        app.task(echo).apply((1,))
