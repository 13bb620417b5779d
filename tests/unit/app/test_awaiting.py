"""Results in an event loop (P082), and Celery's own names for waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, GroupResult, allow_join_result, group
from amqp_tasks.app import ResultSet
from amqp_tasks.backends._inbox import Entry
from amqp_tasks.errors import ConfigurationError, ResultUnavailable
from support.apps import add_workflow_tasks
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    with App("awaited", broker=f"memory://{uuid4().hex}/") as made:
        add_workflow_tasks(made)
        yield made


@pytest.fixture
def worker(app: App) -> Iterator[None]:
    with running(app, pool="threads", concurrency=2):
        yield


def pair(app: App) -> Any:
    """What ends with a group: its result is one of several."""
    add = app.tasks["add"]
    return add.s(1, 1) | group(add.s(1), add.s(2))


@pytest.mark.usefixtures("worker")
def test_a_result_is_awaited_for_what_get_gives_or_raises(app: App) -> None:
    async def main() -> Any:
        with pytest.raises(ValueError, match="no"):
            await app.tasks["fail"].delay()
        ended = app.tasks["add"].delay(2, 2)
        return (
            await ended,
            await ended,
            await app.tasks["add"].s(4, 4).apply(),
            await group(pair(app), app.tasks["add"].s(3, 3)).delay(),
        )

    assert asyncio.run(main()) == (4, 4, 8, [[3, 4], 6])


def test_what_cannot_be_known_is_not_awaited(app: App) -> None:
    async def main() -> None:
        await app.tasks["add"].apply_async((1, 1), ignore_result=True)

    with pytest.raises(ResultUnavailable, match="ignore_result"):
        asyncio.run(main())


def test_the_loop_goes_on_while_results_are_awaited_and_no_thread_waits(app: App) -> None:
    app.backend.reply_to(timeout=5)

    async def main() -> list[Any]:
        before = threading.active_count()
        waiting = [asyncio.create_task(_value(app.tasks["add"].delay(n, n))) for n in range(50)]
        await asyncio.sleep(0)
        assert threading.active_count() == before
        with running(app, pool="threads", concurrency=2):
            return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [2 * n for n in range(50)]


async def _value(result: Any) -> Any:
    return await result


@pytest.mark.usefixtures("worker")
def test_a_group_is_iterated_in_a_loop_in_the_order_in_which_members_end(app: App) -> None:
    gate = threading.Event()
    app.task(name="late")(lambda: gate.wait(10))

    async def main() -> list[Any]:
        results: Any = group(app.tasks["late"].s(), app.tasks["fail"].s(), pair(app)).delay()
        ended: list[Any] = []
        async for result in results:
            assert result.ready()
            ended.append(results.results.index(result))
            if len(ended) == 2:
                gate.set()
        return ended

    ended = asyncio.run(main())
    assert sorted(ended) == [0, 1, 2]
    assert ended[-1] == 0


def test_who_stops_to_wait_in_a_loop_leaves_nothing_behind(app: App) -> None:
    results = ResultSet[Any]([app.send_task("add", (1, 1)) for _ in range(2)])

    async def main() -> None:
        for waiting in (_value(results), _value(results[1]), anext(aiter(results))):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waiting

    asyncio.run(main())

    for result in results:
        assert isinstance(result._expected, Entry)
        assert result._expected.callbacks == ()


def test_a_result_that_comes_after_its_loop_was_closed_disturbs_nobody(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    result = app.send_task("add", (1, 1))

    async def begin() -> Any:
        waiting = result.__await__()
        next(waiting)
        return waiting

    waiting = asyncio.run(begin())
    with running(app, pool="threads", concurrency=1):
        assert result.get(timeout=10) == 2

    waiting.close()
    assert "callback of result" not in caplog.text


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_task_does_not_await_results_unless_it_says_so(app: App, is_allowed: bool) -> None:
    async def function() -> Any:
        result = app.tasks["add"].delay(1, 1)
        if not is_allowed:
            return await result
        with allow_join_result():
            return await result

    awaits: Any = app.task(name="awaits")(function)
    if is_allowed:
        assert awaits.delay().get(timeout=10) == 2
    else:
        with pytest.raises(ConfigurationError, match="waiting for a result inside task 'awaits'"):
            awaits.delay().get(timeout=10)


@pytest.mark.usefixtures("worker")
def test_celerys_native_names_wait_as_join_and_iterate_do(app: App) -> None:
    results: Any = group(app.tasks["add"].s(2, 2), app.tasks["fail"].s(), pair(app)).delay()
    assert isinstance(results, GroupResult)

    good, bad, inner = results.join_native(timeout=10, propagate=False)
    with pytest.raises(ValueError, match="no"):
        results.join_native(timeout=10)
    told = dict(results.iter_native(timeout=10))

    assert (good, bad.args, inner) == (4, ("no",), [3, 4])
    assert set(told) == {result.id for result in results}
    assert told[results[0].id] == {
        "task_id": results[0].id, "status": "SUCCESS", "result": 4, "traceback": None, "children": [],
    }  # fmt: skip
    failure = told[results[1].id]
    assert (failure["status"], failure["result"].args) == ("FAILURE", ("no",))
    assert "ValueError: no" in failure["traceback"]
    inner_result: Any = results[2]
    assert told[inner_result.id] == inner_result.results
