"""Retries through RabbitMQ: the same task again and again, delayed by the broker, and never lost in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks import App
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.retry_app import QUEUE

APP = "support.retry_app:app"
DEAD = f"{QUEUE}.dead"


@pytest.fixture
def caller(vhost: Vhost, ledger: Ledger) -> Iterator[App]:
    with App("caller", broker=vhost.url, task_default_queue=QUEUE) as made:
        yield made


def test_fifty_retries_in_a_row_keep_the_message_and_leave_nothing(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Rows U040, U041, U042, U043."""
    worker = worker_process("-c", "2", app=APP)

    result = caller.send_task("again", (50,), headers={"x-tenant": "acme"}, priority=3)
    told = result.get(timeout=60)

    assert (told["retries"], told["id"], told["root_id"]) == (50, result.id, result.id)
    # RabbitMQ's own headers do not pile up.
    assert (told["tenant"], told["headers"]) == ("acme", ["x-tenant"])
    assert (told["priority"], told["queue"]) == (3, QUEUE)
    assert [ledger.counts(f"run {n}")[result.id] for n in range(51)] == [1] * 51
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == raw_client.depth(DEAD) == 0


def test_a_retry_with_a_pause_waits_in_the_broker(caller: App, worker_process: WorkerProcesses) -> None:
    """Row B034."""
    worker_process("-c", "1", app=APP)

    before = time.time()
    result = caller.send_task("again", (2, 1.0))
    eventually(lambda: result.state == "RETRY", within=10)
    told: dict[str, Any] = result.get(timeout=30)

    assert told["retries"] == 2
    assert told["headers"] == []
    # Not a measurement: two pauses cannot be shorter.
    assert told["time"] - before >= 2.0


def test_a_snooze_waits_in_the_broker(caller: App, worker_process: WorkerProcesses) -> None:
    """Row B015."""
    worker_process("-c", "1", app=APP)

    result = caller.send_task("snooze", (1.0, time.time()))

    assert result.get(timeout=30) >= 1.0


def test_a_plan_retries_at_once_and_then_after_pauses_until_it_is_used_up(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    """Row B039."""
    worker_process("-c", "1", app=APP)

    before = time.time()
    fast, slow, never = (caller.send_task("planned", (times,)) for times in (2, 3, 9))

    assert fast.get(timeout=30) > before
    # Not a measurement: a pause cannot be shorter.
    assert slow.get(timeout=30) - before >= 1.0
    with pytest.raises(ValueError, match="run 4"):
        never.get(timeout=30)
    assert [ledger.counts(f"run {n}")[never.id] for n in range(6)] == [1, 1, 1, 1, 1, 0]


def test_a_death_between_retry_and_ack_loses_nothing(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, tmp_path: Path
) -> None:
    """Row U027."""
    worker = worker_process("-c", "1", app=APP)

    result = caller.send_task("die_between", (str(tmp_path / "marker"),))

    assert result.get(timeout=30) == 1
    # The first run is repeated, as its ack was never sent, and the second is there twice: under one id.
    eventually(lambda: ledger.counts("run 1")[result.id] == 2, within=30)
    assert ledger.counts("run 0")[result.id] == 2
    eventually(lambda: raw_client.depth(QUEUE) == 0, within=10)
    assert worker.stop() == 0
    assert raw_client.depth(DEAD) == 0
