"""Tasks with a delay: not early, not in the worker, not lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
TOLERANCE = 0.05
"""Seconds by which nothing may be early."""
pytestmark = pytest.mark.usefixtures("ledger")


def test_a_delayed_task_runs_when_it_is_due_and_the_worker_does_not_hold_it_before(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Rows U016, U017, U018."""
    worker = worker_process("-c", "1", app=APP)
    far = client.act("far", countdown=3600.7)
    began = time.time()
    eta = datetime.now(UTC) + timedelta(seconds=1.3)

    late = [client.act("0.4", "time", countdown=0.4), client.act("1.7", "time", countdown=1.7)]
    later = client.act("1.3", "time", eta=eta)
    now = client.act("now").get(timeout=10)

    assert now == "now"
    waits = [result.get(timeout=10) - began for result in late]
    assert waits[0] >= 0.4 - TOLERANCE
    assert waits[1] >= 1.7 - TOLERANCE
    assert later.get(timeout=10) >= eta.timestamp() - TOLERANCE
    assert far.state == "PENDING"
    assert ledger.keys("start").count("far") == 0
    assert worker.stop() == 0
    # The worker has given back all it held.
    assert raw_client.depth(QUEUE) == 0


def test_a_delayed_task_outlives_the_workers(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Row B034."""
    first = worker_process("-c", "1", app=APP)
    sent = {f"key-{number}" for number in range(20)}
    for key in sorted(sent):
        client.act(key, countdown=1.5)

    first.kill_all()
    second = worker_process("-c", "2", app=APP)

    eventually(lambda: _assert(set(ledger.keys("done")) == sent), within=15)
    assert second.stop() == 0
    assert_conserved(sent, ledger, raw_client)


def _assert(condition: bool) -> None:
    assert condition
