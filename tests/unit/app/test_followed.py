"""What followed a task, as far as who called it can know (P081)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, AsyncResult, GroupResult, Signature, chain, chord, group
from amqp_tasks.errors import ResultUnavailable
from support.apps import add_workflow_tasks
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    """An app with a worker in a thread."""
    with App("followed", broker=f"memory://{uuid4().hex}/") as made:
        add_workflow_tasks(made)
        with running(made, pool="threads", concurrency=2):
            yield made


@pytest.fixture
def called_back(app: App) -> AsyncResult[Any]:
    """The result of a task that has ended, and so did a callback of it that nobody waits for."""
    add = app.tasks["add"]
    result: AsyncResult[Any] = add.s(1, 1).link(add.s(1).set(task_id="callback")).delay()
    result.get(timeout=10)
    return result


def test_walking_goes_on_beside_a_child_that_cannot_be_known_here(called_back: AsyncResult[Any]) -> None:
    walked = list(called_back.iterdeps(intermediate=True))

    assert walked == [(None, called_back), (called_back, AsyncResult("callback"))]


def test_a_child_without_a_value_here_is_named_with_what_to_do_instead(called_back: AsyncResult[Any]) -> None:
    said = f"task callback, which followed task {called_back.id}, cannot be known here.*make it a step of a chain"

    for ask in (lambda: list(called_back.iterdeps()), lambda: list(called_back.collect(intermediate=True))):
        with pytest.raises(ResultUnavailable, match=said):
            ask()
    with pytest.raises(ResultUnavailable, match=said):
        called_back.get_leaf(timeout=10)


def test_walking_from_a_result_that_is_not_known_here_says_so_in_any_case(app: App) -> None:
    with pytest.raises(ResultUnavailable, match="the result of task elsewhere cannot be known here"):
        list(AsyncResult("elsewhere", app=app).iterdeps(intermediate=True))


def test_a_child_that_cannot_be_known_here_is_drawn_as_unknown(called_back: AsyncResult[Any]) -> None:
    assert called_back.graph().text().splitlines() == [
        f"add {called_back.id}: SUCCESS",
        "  callback: UNKNOWN",
    ]


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_group_is_drawn_with_all_its_members_and_what_was_before_each(app: App, is_eager: bool) -> None:
    def add(name: str, *args: int) -> Signature:
        return app.tasks["add"].s(*args).set(task_id=name)

    fail, total = app.tasks["fail"].s().set(task_id="e"), app.tasks["total"].s().set(task_id="h")
    body = chord([add("f", 60), add("g", 70)], total)
    workflow = chain(add("a", 1, 1), group(add("b", 10), group(add("c", 20), fail), body, add("i", 80)))
    results: Any = workflow.apply() if is_eager else workflow.delay()
    assert isinstance(results, GroupResult)
    results.get(timeout=10, propagate=False)

    graph = results.graph()

    assert graph.text().splitlines() == [
        "add a: SUCCESS", "  add b: SUCCESS", "  add c: SUCCESS", "  fail e: FAILURE", "  add i: SUCCESS",
        "  add f: SUCCESS", "    total h: SUCCESS", "  add g: SUCCESS", "    total h: SUCCESS",
    ]  # fmt: skip
    assert graph.roots == ["a"]
    assert (graph.dot().count("->"), graph.mermaid().count("-->")) == (8, 8)


def test_members_of_a_group_that_begins_a_workflow_are_drawn_in_their_order(app: App) -> None:
    add = app.tasks["add"]
    results: Any = group(add.s(n, n).set(task_id=f"{n}") for n in range(4)).delay()

    assert results.graph().roots == ["0", "1", "2", "3"]
