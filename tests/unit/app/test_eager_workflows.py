"""Workflows run in the caller: `apply()` and `task_always_eager` give what workers give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqp_tasks import App, AsyncResult, GroupResult, Task, chain, chord, group
from amqp_tasks.errors import ChordError, ConfigurationError
from support.apps import add_workflow_tasks

told: list[Any] = []


@pytest.fixture
def app() -> Iterator[App]:
    told.clear()
    with App("eager", broker="memory://") as made:
        add_workflow_tasks(made)

        @made.task(name="told")
        def tell(value: Any, key: str = "") -> None:
            told.append((value, key))

        @made.task(name="explained")
        def explain(request: Any, error: Exception, traceback: str | None) -> None:
            told.append((request.id, type(error)))

        yield made


@pytest.mark.parametrize("is_always_eager", [False, True])
def test_workflows_give_their_values(app: App, is_always_eager: bool) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    app.conf.update(task_always_eager=is_always_eager)

    def run(part: Any, *args: Any) -> Any:
        return (part.delay(*args) if is_always_eager else part.apply(args)).get()

    assert run(add.s(2), 2) == 4
    assert run(chain(add.s(4, 4), add.s(8), add.si(1, 1))) == 2
    assert run(group(add.s(i, i) for i in range(3))) == [0, 2, 4]
    assert run(chord([add.s(i, i) for i in range(3)], total.s())) == 6
    assert run(chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(1))) == 8
    assert run(add.starmap([(1, 1), (2, 2)])) == [2, 4]


def test_what_runs_a_task_for_many_items_runs_in_place_when_it_is_called(app: App) -> None:
    add = app.tasks["add"]
    pairs = [(1, 1), (2, 2), (3, 3)]
    chunked = {"task": "celery.chunks", "kwargs": {"task": add.s(), "it": pairs, "n": 2}}

    @app.task(name="same")
    async def same(value: int) -> int:
        return value

    assert add.starmap(pairs)() == [2, 4, 6]
    assert same.map([1, 2])() == [1, 2]
    assert app.signature(chunked)() == [[2, 4], [6]]


def test_the_operator_of_inversion_sends_a_signature_and_waits(app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    app.conf.update(task_always_eager=True)

    assert ~add.s(2, 2) == 4
    assert ~(group(add.s(1, 1), add.s(2, 2)) | total.s()) == 6


def test_a_signature_by_name_takes_options_as_a_call_does(app: App) -> None:
    made = app.signature("add", args=(1, 1), countdown=10, queue="q", stamps={"batch": 1})

    assert made == app.tasks["add"].signature((1, 1), countdown=10, queue="q", stamps={"batch": 1})
    with pytest.raises(ConfigurationError, match="unknown call option 'countdwon', did you mean 'countdown'"):
        app.signature("add", (1, 1), countdwon=10)  # type: ignore[call-arg]  # what is refused
    with pytest.raises(TypeError, match="args must be a list or tuple, got str"):
        app.signature("add", "ab")


def test_arguments_of_apply_are_taken_as_those_of_apply_async(app: App) -> None:
    given: Any = None
    text: Any = "ab"
    for part in (app.tasks["add"].s(2, 2), chain(app.tasks["add"].s(2, 2))):
        assert part.apply(given, given).get() == 4
        for call in (part.apply, part.apply_async):
            with pytest.raises(
                TypeError, match=r"args must be a list or tuple, got str: write args=\(value,\)"
            ):
                call(text)


def test_results_hang_together(app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    result = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()).apply()
    assert isinstance(result.parent, GroupResult)
    assert result.parent.get() == [3, 4]
    first = result.parent.parent
    assert isinstance(first, AsyncResult)
    assert first.get() == 2


def test_a_failure_ends_what_follows_and_calls_errbacks_once(app: App) -> None:
    fail, add, total, tell = (app.tasks[name] for name in ("fail", "add", "total", "told"))

    result = chain(add.s(1, 1), fail.s(), add.s(1)).on_error(tell.s("chain")).apply()
    assert isinstance(result.result, ValueError)
    assert [key for _, key in told] == ["chain"]

    told.clear()
    body = total.s().on_error(app.tasks["explained"].s())
    result = chord([add.s(1, 1), fail.s()], body).apply()
    with pytest.raises(ChordError, match=r"raised ValueError\('no'\)") as caught:
        result.get()
    assert isinstance(caught.value.__cause__, ValueError)
    assert told == [(result.id, ChordError)]


@pytest.mark.parametrize("throws", [False, True])
def test_a_callback_on_complete_gets_outcomes_also_of_members_that_fail(app: App, throws: bool) -> None:
    fail, add, total = (app.tasks[name] for name in ("fail", "add", "total"))
    outcomes = app.task(name="outcomes")(lambda found: found)
    app.conf.update(task_always_eager=True, task_eager_propagates=throws)

    inner = chord([add.s(1, 1)], total.s())
    result = group(inner, fail.s()).on_complete(outcomes.s()).delay()

    good, bad = result.get()
    assert (good["state"], good["value"], good["error"]) == ("SUCCESS", 2, None)
    assert (bad["task_id"], bad["state"], bad["value"]) == (result.parent[1].id, "FAILURE", None)
    assert bad["error"] == {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}


def _apply_async(app: App, name: str, *args: Any, **options: Any) -> Any:
    return app.tasks[name].apply_async(args, **options)


def _apply(app: App, name: str, *args: Any, **options: Any) -> Any:
    return app.tasks[name].apply(args, **options)


def _send_task(app: App, name: str, *args: Any, **options: Any) -> Any:
    return app.send_task(name, args, **options)


def _send_many(app: App, name: str, *args: Any, **options: Any) -> Any:
    (result,) = app.send_many([(app.tasks[name], args, {}, options)])
    return result


@pytest.mark.parametrize("call", [_apply_async, _apply, _send_task, _send_many])
def test_an_eager_call_runs_its_callbacks_or_its_errbacks(app: App, call: Callable[..., Any]) -> None:
    app.conf.update(task_always_eager=True)
    tell, explain = app.tasks["told"], app.tasks["explained"]

    call(app, "add", 1, 1, link=[tell.s("a"), tell.s("b")], link_error=tell.s("c"))
    failed = call(app, "fail", link=tell.s("a"), link_error=[tell.s("b"), explain.s()])

    assert told == [(2, "a"), (2, "b"), (failed.id, "b"), (failed.id, ValueError)]


def test_an_eager_call_that_is_replaced_runs_its_callbacks_once(app: App) -> None:
    tell, add = app.tasks["told"], app.tasks["add"]

    @app.task(bind=True)
    def replaced(self: Task[..., Any], part: Any) -> None:
        raise self.replace(app.signature(part))

    parts = (add.s(1, 1).link(tell.s("own")), chord([add.s(1, 1)], app.tasks["total"].s()))
    results = [replaced.apply((part,), link=tell.s("call")) for part in parts]

    assert [result.get() for result in results] == [2, 2]
    assert told == [(2, "own"), (2, "call"), (2, "call")]


@pytest.mark.parametrize("form", ["body", "chord", "group", "call of a chain"])
def test_options_of_what_is_composed_come_to_those_of_its_parts(app: App, form: str) -> None:
    fail, add, total, tell = (app.tasks[name] for name in ("fail", "add", "total", "told"))
    one, two = tell.s("one"), tell.s("two")

    match form:
        case "body":
            (group(fail.s(), add.s(1, 1)) | total.s() | add.s(1)).on_error(one).on_error(two).apply()
        case "chord":
            chord([add.s(1, 1)], total.s().link(one), link=two).apply()
        case "group":
            group(fail.s().link_error(one), link_error=two).apply()
        case _:
            chain(add.s(1, 1), add.s(1)).link(one).apply(link=two)

    assert [key for _, key in told] == ["one", "two"]


def test_the_id_of_a_group_is_that_of_none_of_its_members(app: App) -> None:
    result = group(app.tasks["add"].s(1, n) for n in range(2)).apply(task_id="all")

    assert isinstance(result, GroupResult)
    assert len({result.id, *(member.id for member in result)}) == 3
    assert result.id == "all"


def test_an_eager_result_that_is_revoked_or_forgotten_stays_as_it_is(app: App) -> None:
    app.conf.update(broker_url="amqp://127.0.0.1:1//", task_publish_timeout=0.1, task_always_eager=True)
    add = app.tasks["add"]
    results: list[Any] = [
        add.delay(1, 1),
        add.s(1, 1).apply(),
        group(add.s(1, 1), group(add.s(2, 2))).delay(),
    ]

    for result in results:
        result.revoke()
        result.forget()

    assert [result.get() for result in results] == [2, 2, [2, 4]]
