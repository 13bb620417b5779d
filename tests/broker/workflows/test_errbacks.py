"""Errbacks that take the exception, of tasks that are not run: they are tasks of their own (U051)."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqp_tasks import App, chord
from amqp_tasks.errors import ChordError
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.workflow_app import (
    QUEUE,
    add,
    described,
    die_in_errback,
    explained,
    explained_later,
    fail,
    gather,
    hang_in_errback,
    raise_in_errback,
)

APP = "support.workflow_app:app"
DEAD = f"{QUEUE}.dead"
pytestmark = pytest.mark.usefixtures("caller")


def _assert(condition: object) -> None:
    assert condition


def _joins(vhost: Vhost) -> list[str]:
    return [queue["name"] for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.join")]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_errback_of_a_body_that_hangs_holds_no_other_join(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, pool: str
) -> None:
    worker_process("-P", pool, "-c", "2", app=APP)

    failed = chord([fail.s(), add.s(1, 1)], gather.s("never").on_error(hang_in_errback.s()))()
    with pytest.raises(ChordError):
        failed.get(timeout=20)
    ledger.wait_for("hanging", failed.id)

    assert chord([add.s(1, 1), add.s(2, 2)], gather.s("next"))().get(timeout=20) == [2, 4]
    eventually(lambda: _assert(not _joins(vhost)), within=10)


def test_an_errback_of_a_body_has_the_time_limit_of_its_task_and_ends_as_a_dead_letter(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)

    failed = chord([fail.s()], gather.s("never").on_error(hang_in_errback.s()))()
    ledger.wait_for("hanging", failed.id)

    eventually(lambda: _assert(raw_client.depth(DEAD) == 1), within=20)
    assert add.delay(1, 1).get(timeout=20) == 2
    assert ledger.keys("hanging") == [failed.id]
    (letter,) = caller.dead_letters.find(queues=[QUEUE])
    assert (letter.task, letter.error_type) == ("amqp_tasks.call_errback", "TimeLimitExceeded")
    assert letter.kwargsrepr == f"{{'task': 'hang_in_errback', 'request': '{failed.id}'}}"


def test_an_errback_of_a_body_that_kills_its_process_runs_again_and_the_body_ends_once(
    worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"

    body = gather.s("never").on_error(die_in_errback.s(str(marker))).on_error(explained.s())
    failed = chord([fail.s(), add.s(1, 1)], body)()

    ledger.wait_for("died", failed.id, within=20)
    with pytest.raises(ChordError):
        failed.get(timeout=20)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    assert marker.exists()
    ledger.wait_for("explained", f"{failed.id} ChordError")
    assert [ledger.counts(event) for event in ("died", "gather")] == [{failed.id: 1}, {}]


def test_an_errback_of_a_refused_task_hangs_alone_and_is_told_its_request(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)
    unknown = caller.signature("unknown", (1, "two"), kwargs={"three": 3}).stamp(batch="b")

    refused = unknown.set(link_error=[hang_in_errback.s(), described.s("all")]).delay()

    ledger.wait_for("hanging", refused.id)
    seen = "all unknown (1, 'two') {'three': 3} {'batch': 'b'} NotRegistered("
    eventually(lambda: _assert(ledger.keys("described")[0].startswith(seen)), within=10)
    assert chord([add.s(1, 1)], gather.s("next"))().get(timeout=20) == [2]


def test_an_errback_of_a_body_that_raises_is_a_dead_letter_and_stops_no_other(
    worker_process: WorkerProcesses, ledger: Ledger, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)

    body = gather.s("never").on_error(raise_in_errback.s()).on_error(explained.s())
    failed = chord([fail.s()], body)()

    ledger.wait_for("explained", f"{failed.id} ChordError")
    eventually(lambda: _assert(raw_client.depth(DEAD) == 1), within=10)


def test_an_errback_may_be_a_coroutine_wherever_it_is_called(
    worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    in_slot = fail.apply_async(link_error=explained_later.s())
    as_task = chord([fail.s()], gather.s("never").on_error(explained_later.s()))()

    ledger.wait_for("explained later", f"{in_slot.id} ValueError")
    ledger.wait_for("explained later", f"{as_task.id} ChordError")
