"""Delayed tasks and a broker that dies while they wait."""

from __future__ import annotations

import pytest

from support import Ledger, PrivateNode, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_client import WorkerClient

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ledger")]


def test_delayed_tasks_survive_a_killed_broker(
    private_node: PrivateNode, private_client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    sent = {f"key-{number}" for number in range(20)}
    for number, key in enumerate(sorted(sent)):
        private_client.act(key, countdown=2.0 + number % 2)

    private_node.kill()
    private_node.start()
    worker = worker_process("-c", "1", app="support.worker_app:app")

    eventually(lambda: _assert(set(ledger.keys("done")) == sent), within=40)
    assert worker.stop() == 0
    with RawClient(private_node.url) as raw:
        assert_conserved(sent, ledger, raw)


def _assert(condition: bool) -> None:
    assert condition
