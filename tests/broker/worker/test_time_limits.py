"""Time limits in the processes that users run."""

from __future__ import annotations

import pytest

from amqp_tasks.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from support import Ledger, RawClient, WorkerProcesses
from support.worker_app import QUEUE
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

    assert client.act("tidy", "tidy", FAR, soft_time_limit=2).get(timeout=15) == "cleaned up"

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


def test_the_hard_limit_ends_the_process_and_is_the_outcome(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Row U059."""
    worker = worker_process("-c", "1", app=APP)

    result = client.act("slow", "sleep", FAR, time_limit=1.5)

    with pytest.raises(TimeLimitExceeded, match=r"hard time limit of 1\.5 s exceeded"):
        result.get(timeout=15)
    assert client.act("next").get(timeout=15) == "next"
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == 0
    assert ledger.counts("start") == {"slow": 1, "next": 1}
    assert len({entry.pid for entry in ledger.entries("start")}) == 2


def test_code_that_keeps_the_interpreter_is_ended_by_the_supervisor(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    """Row U059."""
    worker = worker_process("-c", "1", app=APP)

    result = client.act("deaf", "hog", FAR, time_limit=1.5)

    with pytest.raises(TimeLimitExceeded, match=r"hard time limit of 1\.5 s exceeded"):
        result.get(timeout=18)
    assert client.act("next").get(timeout=15) == "next"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"deaf": 1, "next": 1}


def test_a_task_that_was_acked_before_it_ran_is_answered_for_as_well(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", "--time-limit", "0.3", app=APP)

    result = client.app.send_task("act_early", ("early", "sleep", FAR))

    with pytest.raises(TimeLimitExceeded, match=r"hard time limit of 0\.3 s exceeded"):
        result.get(timeout=15)
    assert worker.stop() == 0


def test_a_warm_stop_lasts_as_long_as_the_limit_of_a_hung_task(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("hung", "sleep", FAR, time_limit=1)
    ledger.wait_for("start")

    assert worker.stop() == 0

    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=15)


def test_who_waits_is_told_of_a_time_limit_and_its_task_can_be_put_back(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_TASK_ACKS_ON_TIMEOUT": "false"})
    failed = client.act("fails", "fail")
    slow = client.act("slow", "sleep", FAR, time_limit=0.3)

    with pytest.raises(ValueError, match="fails"):
        failed.get(timeout=15)
    with pytest.raises(TimeLimitExceeded):
        slow.get(timeout=15)
    (letter,) = client.app.dead_letters.find()
    assert (letter.id, letter.error_type) == (slow.id, "TimeLimitExceeded")

    assert client.app.dead_letters.requeue().count == 1
    ledger.wait_for("start", "slow", count=2)
    raw_client.get(f"{QUEUE}.dead", within=15)
    assert worker.stop() == 0


def test_a_failure_that_nobody_waits_for_is_kept_with_its_limit(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_TASK_STORE_ERRORS_EVEN_IF_IGNORED": "false"})

    client.act("slow", "sleep", FAR, time_limit=0.3, ignore_result=True)
    ledger.wait_for("start")

    dead = raw_client.get(f"{QUEUE}.dead", within=15)
    assert dead.headers["x-error-type"] == "TimeLimitExceeded"
    assert "hard time limit of 0.3 s exceeded" in str(dead.headers["x-error-message"])
    assert worker.stop() == 0
