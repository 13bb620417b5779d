"""Joins that nobody would end are looked at by the clock: completed where they can be, else given up (U049)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks import App, chord
from amqp_tasks.errors import BulkSendError, ChordError
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.workflow_app import add, fuse_early, gated, gather, told

APP = "support.workflow_app:app"
TIMEOUT = 6.0
ENV = {"AMQP_TASKS_TASK_CHORD_TIMEOUT": str(TIMEOUT)}


def _assert(condition: object) -> None:
    assert condition


@pytest.fixture(autouse=True)
def _impatient(caller: App) -> Iterator[None]:
    before = caller.settings.task.chord_timeout
    caller.conf.update(task_chord_timeout=TIMEOUT)
    yield
    caller.conf.update(task_chord_timeout=before)


def _joins(vhost: Vhost) -> list[str]:
    return [queue["name"] for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.join")]


def _waiting(vhost: Vhost, raw_client: RawClient) -> int:
    """Messages in the timer wheel."""
    names = [queue["name"] for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.delay.")]
    return sum(raw_client.depth(name) for name in names)


def test_a_join_whose_last_look_died_is_completed(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    marker = tmp_path / "died"

    result = chord([add.s(1, 1), fuse_early.s(5, str(marker))], gather.s("it"))()

    assert result.get(timeout=20) == [2, 5]
    assert marker.exists()
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    assert ledger.keys("gather") == ["it"]


def test_a_join_that_was_emptied_is_given_up(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, raw_client: RawClient, tmp_path: Path
) -> None:
    worker_process("-c", "2", app=APP, env=ENV)
    go = tmp_path / "go"

    result = chord([add.s(1, 1), gated.s(5, str(go))], gather.s("it").on_error(told.s("it")))()
    (join,) = _joins(vhost)
    eventually(lambda: _assert(raw_client.depth(join) == 2), within=10)
    raw_client.purge(join)

    with pytest.raises(ChordError, match="emptied"):
        result.get(timeout=30)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    go.touch()
    assert add.delay(1, 1).get(timeout=20) == 2
    eventually(lambda: _assert(ledger.keys("told") == ["it"]), within=10)
    assert ledger.keys("gather") == []
    assert not _joins(vhost)


def test_a_join_whose_member_is_lost_is_given_up_in_time(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)

    inner = chord([add.s(1, 1), add.s(2, 2).set(queue="other")], gather.s("inner"))
    result = chord([inner, add.s(3, 3)], gather.s("outer").on_error(told.s("outer")))()
    raw_client.purge("other")

    # Both wait for as long; if the inner one is given up first, it is the outer one's member that failed.
    with pytest.raises(ChordError, match="given up"):
        result.get(timeout=40)
    eventually(lambda: _assert(ledger.keys("told") == ["outer"]), within=10)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    # What looked at them by the clock has ended with them.
    eventually(lambda: _assert(_waiting(vhost, raw_client) == 0), within=20)


def test_a_join_is_told_of_members_that_were_not_sent(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    raw_client.channel.exchange_declare("void")

    with pytest.raises(BulkSendError):
        chord(
            [add.s(1, 1), add.s(2, 2).set(exchange="void", routing_key="x")],
            gather.s("it").on_error(told.s("it")),
        )()

    eventually(lambda: _assert(ledger.keys("told") == ["it"]), within=20)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    assert ledger.keys("gather") == []


def test_a_chord_costs_one_delayed_message_which_ends_with_it(
    worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient
) -> None:
    result = chord([add.s(number, 0) for number in range(30)], gather.s())()
    eventually(lambda: _assert(_waiting(vhost, raw_client) == 1), within=10)
    worker_process("-c", "1", app=APP, env=ENV)

    assert result.get(timeout=20) == list(range(30))

    eventually(lambda: _assert(_waiting(vhost, raw_client) == 0), within=20)
    eventually(lambda: _assert(raw_client.depth("work") == 0), within=10)
