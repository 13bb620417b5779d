"""A limit that holds for all nodes holds when the broker restarts, and goes on after it."""

from __future__ import annotations

import pytest

from support import Ledger, PrivateNode, WorkerProcesses, eventually
from support.pacing import assert_paced
from support.worker_client import WorkerClient

APP = "support.worker_app:app"


@pytest.mark.slow
def test_p033_tokens_outlive_a_restart_of_the_broker_and_no_burst_follows(
    private_node: PrivateNode, private_client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    workers = [worker_process("-c", "2", "-n", f"node{number}@here", app=APP) for number in range(2)]
    sent = {f"shared-{number}" for number in range(40)}
    for key in sorted(sent):
        private_client.app.send_task("shared", (key,))
    ledger.wait_for("done", count=6)

    private_node.restart()

    eventually(lambda: set(ledger.keys("done")) == sent, within=90)
    # One whose rejection was not written when the connection was closed comes back at once.
    assert_paced([entry.at for entry in ledger.entries("start")], 1, 0.25, early=1)
    assert [worker.stop() for worker in workers] == [0, 0]
