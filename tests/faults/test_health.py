"""A broker that goes away and comes back: what a worker says of itself meanwhile. Rows U002, U009."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import PrivateNode, WorkerProcesses, eventually
from support.health import Health
from support.worker_client import WorkerClient

POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "2"), ("-P", "solo"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_promise_06_a_worker_without_broker_need_not_be_restarted_and_is_ready_when_that_is_back(
    private_node: PrivateNode,
    private_client: WorkerClient,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    pool: tuple[str, ...],
) -> None:
    health = Health(tmp_path / "health.json")
    worker = worker_process(*pool, "--health-file", str(health.path))
    eventually(lambda: health.is_ready)

    private_node.stop()
    eventually(lambda: "the connection to the broker is lost" in health.ask(), within=15)
    eventually(lambda: health.report["state"] == "reconnecting")
    assert health.report["consumers_ok"] is False
    assert health.is_live
    private_node.start()

    eventually(lambda: health.is_ready, within=30)
    eventually(lambda: health.report["state"] == "running", within=10)
    assert private_client.act("after").get(timeout=20) == "after"
    assert worker.stop() == 0
