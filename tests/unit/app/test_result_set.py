"""Results of several calls: looking at them leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, GroupResult
from amqp_tasks.app import ResultSet
from amqp_tasks.backends.rpc import RpcBackend
from amqp_tasks.errors import ResultTimeout
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    with App("sets", broker=f"memory://{uuid4().hex}/") as made:
        made.task(name="t")(_nothing)
        yield made


def _nothing() -> None: ...


def _times_out(results: ResultSet[Any]) -> None:
    with pytest.raises(ResultTimeout):
        list(results.as_completed(timeout=0))


def _shows_a_bar(results: ResultSet[Any]) -> None:
    with pytest.raises(ResultTimeout):
        results.get(timeout=0, progress=True)


def _stops_to_iterate(results: ResultSet[Any]) -> None:
    ended = results.iterate()
    next(ended)
    del ended


@pytest.mark.parametrize("look", [_times_out, _shows_a_bar, _stops_to_iterate])
def test_who_stops_to_look_leaves_nothing_with_results_that_have_not_ended(
    app: App, look: Callable[[ResultSet[Any]], None]
) -> None:
    backend = app.backend
    assert isinstance(backend, RpcBackend)
    with running(app, pool="threads", concurrency=1):
        ended = app.send_task("t")
        ended.get(10)
    unserved: Any = GroupResult("g", [app.send_task("t"), app.send_task("t")])
    results = ResultSet[Any]([ended, app.send_task("t"), unserved])

    look(results)

    del results, unserved
    gc.collect()
    assert backend.statistics().expected == 1


def test_a_result_that_ends_later_is_told_to_who_goes_on_looking(app: App) -> None:
    results = ResultSet[Any]([app.send_task("t"), app.send_task("t")])
    looking = results.as_completed(10)
    _times_out(results)

    with running(app, pool="threads", concurrency=1):
        assert set(looking) == set(results)


@pytest.mark.parametrize("made", [ResultSet([]), GroupResult("g", [])])
def test_what_would_change_the_results_is_told_what_to_do(made: Any) -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'add': .*make another, as in ResultSet\(\[\*results"
    ):
        made.add(None)
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        made.nonsense  # noqa: B018
