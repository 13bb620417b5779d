"""A queue whose tasks fail is left alone for a while, and tried with one task."""

from __future__ import annotations

import pytest

from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

OTHER = "other"
RULES = {
    "AMQP_TASKS_WORKER_BREAKER_RATIO": "1",
    "AMQP_TASKS_WORKER_BREAKER_RUNS": "3",
    "AMQP_TASKS_WORKER_BREAKER_PAUSE": "1.5",
}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_row_b040_a_queue_whose_tasks_fail_is_tried_with_one_task_until_that_succeeds(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    one = () if pool == "solo" else ("-c", "1")
    options = ("-P", pool, *one, "-Q", f"{QUEUE},{OTHER}", "-l", "info")
    worker = worker_process(*options, app="support.worker_app:app", env=RULES)
    failing, fine = [f"fails-{number}" for number in range(4)], [f"fine-{number}" for number in range(30)]
    calls = [client.act(key, "fail") for key in failing[:3]]
    for call in calls:
        assert isinstance(call.get(timeout=10, propagate=False), ValueError)
    worker.wait_output(
        f"queue {QUEUE}: 3 of its last 3 runs failed; this process runs nothing of it for 1.5 s"
    )
    eventually(lambda: _consumers(client) == 0)

    client.act(failing[3], "fail")
    client.many(fine)
    assert client.act("elsewhere", queue=OTHER).get(timeout=10) == "elsewhere"
    assert raw_client.depth(QUEUE) == len(fine) + 1
    worker.wait_output("the first run after a pause failed; this process runs nothing of it for 3 s")
    assert not set(fine).intersection(ledger.keys("start"))

    worker.wait_output(f"queue {QUEUE} is run again")
    eventually(lambda: set(ledger.keys("done")) >= set(fine), within=10)
    assert worker.stop() == 0
    assert set(ledger.counts("start").values()) == {1}
    assert_conserved({*fine, "elsewhere"}, ledger, raw_client)


def _consumers(client: WorkerClient) -> int | None:
    status = client.app.transport.queue_status(QUEUE)
    return status.consumers if status is not None else None
