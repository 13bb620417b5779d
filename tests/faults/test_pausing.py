"""Paused queues and limits that were set outlive the broker's death."""

from __future__ import annotations

import pytest

from support import Ledger, PrivateNode, WorkerProcesses, eventually
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
OTHER = "other"


def consumers(client: WorkerClient, queue_name: str) -> int:
    status = client.app.transport.queue_status(queue_name, timeout=20)
    return status.consumers if status is not None else -1


@pytest.mark.slow
def test_b053_a_pause_and_a_rate_limit_outlive_a_killed_broker_in_workers_old_and_new(
    private_node: PrivateNode,
    private_client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
) -> None:
    queues = ("-c", "1", "-Q", f"{QUEUE},{OTHER}")
    old = worker_process(*queues, app=APP)
    private_client.app.control.rate_limit("count", "1/h")
    private_client.app.control.pause(QUEUE)
    old.wait_output("journal: pause")
    private_client.act("waiting")

    private_node.kill()
    private_node.start()
    new = worker_process(*queues, app=APP, within=40)
    for number in range(4):
        private_client.app.send_task("count", (f"limited-{number}",), queue=OTHER)
    for number in range(10):
        private_client.act(f"elsewhere-{number}", queue=OTHER).get(timeout=30)

    # Both nodes serve the other queue again, and would have taken the waiting one in no time.
    eventually(lambda: consumers(private_client, OTHER) == 2, within=30)
    assert consumers(private_client, QUEUE) == 0
    assert "waiting" not in ledger.keys("start")
    limited = sum(key.startswith("limited") for key in ledger.keys("done"))
    assert limited <= 2, "each node starts one of them in an hour"
    private_client.app.control.resume(QUEUE)
    ledger.wait_for("done", "waiting")
    assert (old.stop(), new.stop()) == (0, 0)
    assert ledger.counts("done")["waiting"] == 1
