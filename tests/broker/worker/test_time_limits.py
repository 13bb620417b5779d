"""Time limits in the processes that users run."""

from __future__ import annotations

import pytest

from amqp_tasks.errors import SoftTimeLimitExceeded
from support import Ledger, WorkerProcesses
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
FAR = 600
"""Seconds that nobody waits for."""
pytestmark = pytest.mark.usefixtures("ledger")


@pytest.mark.parametrize(("pool", "action"), [("prefork", "sleep"), ("solo", "sleep"), ("threads", "spin")])
def test_the_soft_limit_of_a_call_interrupts_the_task(
    client: WorkerClient, worker_process: WorkerProcesses, pool: str, action: str
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    result = client.act("slow", action, FAR, soft_time_limit=0.3)

    with pytest.raises(SoftTimeLimitExceeded, match=r"soft time limit of 0\.3 s exceeded"):
        result.get(timeout=15)
    assert client.act("next").get(timeout=15) == "next"
    assert worker.stop() == 0


def test_a_task_that_cleans_up_after_its_soft_limit_succeeds(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)

    assert client.act("tidy", "tidy", FAR, soft_time_limit=0.3).get(timeout=15) == "cleaned up"

    assert ledger.keys("done") == ["tidy"]
    assert worker.stop() == 0


def test_call_before_task_before_worker(client: WorkerClient, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-c", "3", "--soft-time-limit", "0.4", app=APP)

    results = [
        client.app.send_task("act", ("w", "sleep", FAR)),
        client.app.send_task("act_limited", ("t", "sleep", FAR)),
        client.app.send_task("act_limited", ("c", "sleep", FAR), soft_time_limit=0.2),
    ]

    limits = [str(result.get(timeout=15, propagate=False)) for result in results]
    assert limits == [f"soft time limit of {limit} s exceeded" for limit in ("0.4", "0.3", "0.2")]
    assert worker.stop() == 0
