"""Results over the reply queue: the ways they come, and each way they can fail to."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amqp_tasks.app import App, AsyncResult, allow_join_result, current_request
from amqp_tasks.errors import (
    ClosedError,
    ConfigurationError,
    MalformedMessage,
    RemoteError,
    ResultLost,
    ResultTimeout,
    ResultUnavailable,
)
from support.eventually import eventually
from support.plain_worker import PlainWorker
from support.private import PrivateNode
from support.proxy import TcpProxy
from support.raw import RawClient
from support.vhosts import Vhost

MakeApp = Callable[..., App]
RunWorker = Callable[..., PlainWorker]


class Unforeseen(Exception):
    pass


def echo(value: Any) -> Any:
    return value


def fail(kind: str) -> None:
    raise {"key": KeyError("k"), "own": Unforeseen("u", 7)}[kind]


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


def test_a_timeout_ends_the_wait_and_not_the_task(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)

    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert (result.state, result.result, result.ready()) == ("PENDING", None, False)

    delivery = eventually(lambda: worker.held[0])
    worker.run(delivery)
    assert result.get(5) == 1


def test_64_threads_share_the_reply_queue(make_app: MakeApp, run_worker: RunWorker, vhost: Vhost) -> None:
    """Row R13."""
    app = make_app()
    task = app.task(echo)
    run_worker(app)

    def calls(thread: int) -> list[int]:
        return [task.delay(thread * 1000 + i).get(20) for i in range(16)]

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(calls, range(64)))

    assert found == [[thread * 1000 + i for i in range(16)] for thread in range(64)]
    replies = [queue for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.reply.")]
    assert len(replies) == 1


def test_results_nobody_can_ask_for_are_dropped_and_counted(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    kept = task.delay("kept")

    for i in range(50):
        task.delay(i)
    gc.collect()

    assert kept.get(5) == "kept"

    def all_came() -> None:
        statistics = app.backend.statistics()
        assert statistics.dropped + statistics.received == 51
        assert statistics.expected == 1

    eventually(all_came)


def test_forget_drops_the_result(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    result = task.delay(1)
    result.get(5)

    result.forget()

    with pytest.raises(ResultUnavailable):
        result.get(1)


def test_unread_results_are_bounded_and_the_rest_comes_when_asked_for(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient, vhost: Vhost
) -> None:
    app = make_app(result_cache_max=10)
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    results = task.map_async(range(3000))
    eventually(lambda: len(worker.held) == 500)
    worker.is_holding = False
    for delivery in worker.held:
        worker.run(delivery)
    queue_name = app.backend.reply_to(timeout=1)

    eventually(lambda: raw_client.depth(queue_name) > 0, 10)
    received = app.backend.statistics().received

    assert received < 3000
    assert results.get(20) == list(range(3000))


def test_a_lost_connection_loses_no_result(make_app: MakeApp, run_worker: RunWorker, proxy: TcpProxy) -> None:
    app = make_app(broker=proxy.url_for())
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay("after the cut")
    delivery = eventually(lambda: worker.held[0])

    proxy.cut()
    worker.run(delivery)

    assert result.get(20) == "after the cut"


def test_a_deleted_reply_queue_tells_who_waits_and_serves_later_calls(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)
    eventually(lambda: bool(worker.held))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 20)
        raw_client.channel.queue_delete(app.backend.reply_to(timeout=1))
        with pytest.raises(ResultLost, match=result.id):
            waiting.result(20)

    worker.is_holding = False
    assert task.delay(2).get(20) == 2


def test_a_result_that_comes_after_the_queue_was_back_wins_over_the_loss(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)
    delivery = eventually(lambda: worker.held[0])
    raw_client.channel.queue_delete(app.backend.reply_to(timeout=1))
    with pytest.raises(ResultLost):
        result.get(20)
    for ask in (result.ready, result.successful, lambda: result.state, lambda: result.result):
        with pytest.raises(ResultLost):
            ask()

    worker.is_holding = False
    assert task.delay(2).get(20) == 2
    worker.run(delivery)

    eventually(lambda: app.backend.statistics().received == 2)
    assert (result.ready(), result.get(5)) == (True, 1)


def test_a_result_survives_a_broker_restart(private_node: PrivateNode) -> None:
    app = App("proj", broker=private_node.url)
    task = app.task(echo)
    worker = PlainWorker(app, private_node.url).start()
    try:
        worker.is_holding = True
        result = task.delay("over the restart")
        eventually(lambda: bool(worker.held))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(result.get, 50)
            worker.is_holding = False
            private_node.restart()
            assert waiting.result(55) == "over the restart"
    finally:
        app.close()
        worker.stop()


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


def test_get_inside_a_task_is_refused_unless_allowed(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    other = AsyncResult[Any]("other", app=app)

    @app.task(bind=True)
    def careless(self: Any) -> str:
        other.get(1)
        return "not reached"

    @app.task
    def careful() -> str:
        with allow_join_result():
            try:
                other.get(1)
            except ResultUnavailable:
                return "asked"
        return "not reached"

    run_worker(app)

    with pytest.raises(ConfigurationError, match="allow_join_result"):
        careless.delay().get(5)
    assert careful.delay().get(5) == "asked"


def test_callbacks_run_when_the_result_is_there(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    bad = app.task(fail)
    run_worker(app)
    heard: list[str] = []
    done = threading.Event()

    task.delay(1).then(lambda result: heard.append(f"ok {result.result}"))
    failed = bad.delay("key").then(
        lambda result: heard.append("wrong"), on_error=lambda result: heard.append(result.state)
    )
    failed.on_ready(lambda result: done.set())

    assert done.wait(10)
    eventually(lambda: sorted(heard) == ["FAILURE", "ok 1"])


def test_a_callback_that_would_wait_for_its_own_thread_is_refused(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True  # a result that is there already calls back on the thread that asks
    other = app.send_task("nobody", queue="lonely")
    raised: list[Exception] = []
    done = threading.Event()

    def wait_for_other(result: AsyncResult[Any]) -> None:
        try:
            other.get(5)
        except RuntimeError as exc:
            raised.append(exc)
        done.set()

    task.delay(1).on_ready(wait_for_other)
    worker.run(eventually(lambda: worker.held[0]))

    assert done.wait(10)
    assert "then()" in str(raised[0])


def test_a_wait_for_a_queue_without_consumer_says_so(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row U033."""
    monkeypatch.setattr("amqp_tasks.app._result._DIAGNOSE_AFTER", 0.2)
    result = make_app().send_task("t", queue="lonely")

    with caplog.at_level(logging.WARNING, "amqp_tasks.app"), pytest.raises(ResultTimeout):
        result.get(1)

    assert [getattr(record, "queue", None) for record in caplog.records] == ["lonely"]


def test_closing_ends_waits(make_app: MakeApp) -> None:
    app = make_app()
    result = app.send_task("t")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 30)
        eventually(lambda: bool(result._expectation().waiters))  # type: ignore[attr-defined]
        app.close()
        with pytest.raises(ClosedError):
            waiting.result(10)


def test_a_result_message_that_cannot_be_read_ends_the_wait(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    result = app.send_task("t")

    raw_client.publish(app.backend.reply_to(timeout=1), b"\x80\x04K\x01.", correlation_id=result.id)

    with pytest.raises(MalformedMessage, match="content-type"):
        result.get(5)


def test_states_on_the_way_are_heard(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    result = app.send_task("t")
    heard: list[str] = []

    def send(status: str, value: object) -> None:
        body = json.dumps({"task_id": result.id, "status": status, "result": value, "traceback": None})
        raw_client.publish(
            app.backend.reply_to(timeout=1),
            body.encode(),
            correlation_id=result.id,
            content_type="application/json",
            content_encoding="utf-8",
        )

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 10, on_message=lambda record: heard.append(str(record.status)))
        eventually(lambda: bool(result._expectation().waiters))  # type: ignore[attr-defined]
        send("STARTED", {"pid": 7})
        send("SUCCESS", 5)

        assert waiting.result(10) == 5
    assert heard == ["STARTED", "SUCCESS"]


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


def test_a_forked_child_has_its_own_reply_queue(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    result = task.delay("parent")
    assert result.get(5) == "parent"
    pending = app.send_task("nobody", queue="lonely")
    reader, writer = os.pipe()

    pid = os.fork()
    if pid == 0:
        answer = b"?"
        try:
            try:
                pending.get(1)
            except ResultUnavailable:
                answer = str(task.delay("child").get(15)).encode()
        finally:
            os.write(writer, answer)
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        assert answer == b"child"
        assert task.delay("parent again").get(10) == "parent again"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


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


def test_sequential_calls_are_quick(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    task.delay(0).get(5)

    started = time.monotonic()
    for i in range(20):
        task.delay(i).get(5)

    assert time.monotonic() - started < 2.0
