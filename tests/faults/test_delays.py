"""Delayed tasks and a broker that dies while they wait."""

from __future__ import annotations

import pytest

from support import Ledger, PrivateNode, WorkerProcesses, eventually
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

    eventually(lambda: set(ledger.keys("done")) == sent, within=40)
    assert worker.stop() == 0


def test_the_index_of_delayed_tasks_is_right_after_a_killed_broker(
    private_node: PrivateNode, ledger: Ledger
) -> None:
    with WorkerClient(private_node.url, task_delayed_index=True) as client:
        client.act("far", countdown=600, task_id="far")
        client.act("soon", countdown=3.0, task_id="soon")
        assert [each.id for each in client.app.delayed.find()] == ["soon", "far"]

        private_node.kill()
        private_node.start()
        client.act("after", countdown=500, task_id="after")

        eventually(lambda: [each.id for each in client.app.delayed.find()] == ["after", "far"], within=20)
