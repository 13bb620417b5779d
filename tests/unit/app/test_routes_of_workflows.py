"""Routes that go by arguments are asked with those of calls, in whatever these stand (S121, B055)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from amqp_tasks import App, Signature, Task, Workflow, chain, chord, group
from amqp_tasks.canvas import Gathering, Step, freeze, freeze_steps, launch, launch_steps
from support.inside import running

told: SimpleQueue[str] = SimpleQueue()


def by_arguments(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    task: object = None,
) -> str | None:
    """As users write it: each of their calls has a first argument, and this one by name."""
    if not name.startswith("shop."):
        return None
    assert args[0] is not None
    return str(kwargs["shard"])


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose router goes by arguments."""
    with App("routed", broker=f"memory://{uuid.uuid4().hex}/", task_routes=[by_arguments]) as made:

        @made.task(name="shop.total")
        def total(*values: Any, shard: str) -> int:
            if 13 in values:
                raise ValueError("thirteen")
            return sum(total(*each, shard=shard) if isinstance(each, list) else each for each in values)

        @made.task(name="shop.swap", bind=True)
        def swap(self: Task[..., Any], *values: int, shard: str) -> None:
            raise self.replace(group(total.s(*values, shard=shard), total.s(*values, shard=shard)))

        @made.task(name="shop.alarm")
        def alarm(request: Any, error: Exception, traceback: str | None, shard: str) -> None:
            told.put(type(error).__name__)

        yield made


@pytest.fixture
def vip(app: App) -> Iterator[None]:
    """A worker that serves the queue `vip` and no other."""
    with running(app, pool="threads", concurrency=2, queues=["vip"]):
        yield


def call(app: App, *values: int) -> Signature:
    return app.tasks["shop.total"].s(*values, shard="vip")


@pytest.mark.usefixtures("vip")
def test_workflows_go_where_their_calls_go(app: App) -> None:
    nested = chord(
        [chord([call(app, 1), call(app, 2)], call(app)), chain(call(app, 3), call(app, 4))], call(app)
    )
    listed = chord([chain(call(app, 1), group(call(app, 2), call(app, 3))), call(app, 4)], call(app))
    replaced = chain(app.tasks["shop.swap"].s(1, shard="vip"), call(app))

    assert nested.delay().get(timeout=10) == 10
    assert listed.delay().get(timeout=10) == 11
    assert replaced.delay().get(timeout=10) == 2


@pytest.mark.usefixtures("vip")
def test_named_steps_go_where_their_calls_go(app: App) -> None:
    workflow = (
        Workflow().step("a", call(app)).step("b", call(app, 1), after="a").step("c", call(app), after="a")
    )
    workflow.step("d", call(app), after=["b", "c"])

    assert workflow.delay(1).get(timeout=10) == {"a": 1, "b": 2, "c": 1, "d": 3}


@pytest.mark.usefixtures("vip")
@pytest.mark.parametrize(
    ("kind", "items", "expected"),
    [("map", [1, 2], [1, 2]), ("starmap", [(1, 1), (2, 2)], [2, 4]), ("chunks", [(1, 1), (2, 2)], [[2, 4]])],
)
def test_one_message_for_many_items_goes_where_the_first_of_them_goes(
    app: App, kind: str, items: list[Any], expected: list[Any]
) -> None:
    whole = {"task": call(app), "it": items, **({"n": 2} if kind == "chunks" else {})}

    assert app.signature(f"celery.{kind}", (), whole).delay().get(timeout=10) == expected


@pytest.mark.usefixtures("vip")
def test_a_call_of_an_errback_goes_where_the_errback_goes(app: App) -> None:
    alarm = app.tasks["shop.alarm"].s(shard="vip")

    chord([call(app, 13), call(app, 1)], call(app)).on_error(alarm).delay()

    assert told.get(timeout=10) == "ChordError"


def watched_at(app: App, item: Gathering) -> str:
    (made,) = app.workflows.messages([item], root_id=None, parent_id=None, timeout=5)
    return made.watch.routing_key  # type: ignore[attr-defined, no-any-return]


def gathering(plan: Any) -> Gathering:
    return next(item for item in plan if isinstance(item, Gathering))


def test_a_chord_is_watched_where_its_first_call_goes(app: App) -> None:
    total = app.tasks["shop.total"]
    header = group(chain(total.s(shard="first"), call(app)), call(app, 1))
    frozen = freeze(chain(call(app, 1), header, call(app)).tasks[1], app.calls.new_id, lambda _: {})

    assert watched_at(app, gathering(launch(chord(frozen, call(app)), args=(1,)))) == "first"


def test_named_steps_are_watched_where_the_first_call_of_what_they_need_goes(app: App) -> None:
    total = app.tasks["shop.total"]
    steps = [
        Step(name="a", call=total.s(shard="first")),
        Step(name="b", call=call(app), after=("a",)),
        Step(name="c", call=call(app), after=("a",)),
        Step(name="d", call=call(app), after=("b", "c")),
    ]
    frozen = freeze_steps(steps, "w", app.calls.new_id, lambda _: {})
    first, second = (item for item in launch_steps(frozen, "w", (1,)) if isinstance(item, Gathering))

    assert [watched_at(app, first), watched_at(app, second)] == ["first", "first"]
