"""With an idempotency store a task that has run to its end is not run again, whatever dies before its ack; and none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from amqp_tasks import App
from amqp_tasks.errors import TaskDied, TaskRevokedError
from amqp_tasks.worker._leases import LEASE
from support import Ledger, PrivateNode, RawClient, Vhost, WorkerProcess, WorkerProcesses, eventually
from support.redis import RedisServer
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

Start = Callable[..., WorkerProcess]


@pytest.fixture(autouse=True)
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as made:
        yield made


@pytest.fixture
def start(worker_process: WorkerProcesses, redis_server: RedisServer) -> Start:
    def run(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> WorkerProcess:
        own = {"AMQP_TASKS_TASK_IDEMPOTENCY_STORE": redis_server.url, **(env or {})}
        return worker_process(*arguments, env=own, **options)

    return run


def is_noted(server: RedisServer, key: str) -> bool:
    """Whether the store knows that it is done."""
    return bool((server.client.get(f"amqp_tasks:idempotency:act:{key}") or b"")[:1] == b"d")


@pytest.mark.slow
def test_promise_21_a_run_that_ended_before_its_worker_died_is_not_repeated_and_its_result_arrives(
    private_node: PrivateNode,
    private_client: WorkerClient,
    private_raw: RawClient,
    redis_server: RedisServer,
    ledger: Ledger,
    start: Start,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    worker = start("-c", "1")
    result = private_client.act("once", "wait", str(gate), idempotency_key="order-1")
    ledger.wait_for("start", "once")

    # It ends while the broker takes no result and no ack; then its machine dies.
    private_node.pause()
    try:
        gate.touch()
        eventually(lambda: is_noted(redis_server, "order-1"), within=10)
        worker.kill_all()
    finally:
        private_node.resume()
    worker = start("-c", "1")

    assert result.get(timeout=30) == "once"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"once": 1}


@pytest.mark.slow
def test_promise_21_the_claim_of_a_run_that_died_is_taken_over_by_its_redelivery(
    private_client: WorkerClient, private_raw: RawClient, ledger: Ledger, start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start("-c", "1")
    result = private_client.act("once", "wait", str(gate), idempotency_key="order-1")
    ledger.wait_for("start", "once")

    worker.kill_all()
    gate.touch()
    worker = start("-c", "1")

    assert result.get(timeout=30) == "once"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"once": 2}
    assert ledger.counts("done") == {"once": 1}


@pytest.mark.slow
def test_promise_21_the_claim_of_a_process_that_died_is_taken_over_before_its_lease_is_over(
    private_client: WorkerClient, ledger: Ledger, start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start("-c", "1")
    result = private_client.act("once", "wait", str(gate), idempotency_key="order-1")
    (begun,) = ledger.wait_for("start", "once")

    psutil.Process(begun.pid).kill()

    eventually(lambda: ledger.counts("start")["once"] == 2, within=LEASE / 3)
    gate.touch()
    assert result.get(timeout=10) == "once"
    assert worker.stop() == 0


@pytest.mark.slow
def test_promise_21_what_kills_its_processes_lets_another_call_have_its_key(
    private_client: WorkerClient, ledger: Ledger, start: Start
) -> None:
    worker = start("-c", "1")

    with pytest.raises(TaskDied):
        private_client.act("killer", "exit", 3, idempotency_key="order-1").get(timeout=30)

    assert private_client.act("good", idempotency_key="order-1").get(timeout=10) == "good"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"killer": 3, "good": 1}


@pytest.mark.slow
def test_what_is_revoked_and_loses_its_process_lets_another_call_have_its_key_at_once(
    client: WorkerClient, ledger: Ledger, start: Start, tmp_path: Path
) -> None:
    worker = start("-c", "2")
    first = client.act("first", "wait", str(tmp_path / "gate"), idempotency_key="order-1")
    (begun,) = ledger.wait_for("start", "first")

    first.revoke()
    second = client.act("second", countdown=1)
    second.revoke()
    # The worker has heard of both then.
    with pytest.raises(TaskRevokedError):
        second.get(timeout=10)
    psutil.Process(begun.pid).kill()
    with pytest.raises(TaskRevokedError):
        first.get(timeout=LEASE / 2)

    assert client.act("good", idempotency_key="order-1").get(timeout=10) == "good"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"first": 1, "good": 1}


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_what_had_to_be_killed_to_be_terminated_lets_another_call_have_its_key(
    client: WorkerClient, ledger: Ledger, start: Start
) -> None:
    worker = start("-c", "1")
    first = client.act("deaf", "hog", 600, idempotency_key="order-1")
    ledger.wait_for("start", "deaf")

    first.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        first.get(timeout=LEASE * 2)

    assert client.act("good", idempotency_key="order-1").get(timeout=10) == "good"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"deaf": 1, "good": 1}


@pytest.mark.slow
def test_what_kills_its_processes_in_its_last_words_too_lets_another_call_have_its_key(
    vhost: Vhost, ledger: Ledger, start: Start, redis_server: RedisServer
) -> None:
    start("-c", "1", app="support.dead_app:app")
    with App("caller", broker=vhost.url, task_default_queue=QUEUE) as caller:
        result = caller.send_task("crash_twice_over", idempotency_key="order-1")
        with pytest.raises(TaskDied, match="4 times"):
            result.get(timeout=30)

    eventually(lambda: redis_server.client.get("amqp_tasks:idempotency:crash_twice_over:order-1") is None)
    assert [entry.event for entry in ledger.entries()] == ["dead TaskDied []"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_promise_21_calls_that_are_made_twice_and_whose_workers_are_killed_are_done_once_and_none_is_lost(
    private_client: WorkerClient,
    private_raw: RawClient,
    redis_server: RedisServer,
    ledger: Ledger,
    start: Start,
) -> None:
    # Chance may strike one of them three times, which would make it a dead letter.
    workers = [start("-c", "2", env={"AMQP_TASKS_TASK_CRASH_LIMIT": "100"}) for _ in range(2)]
    keys = [f"key-{number}" for number in range(150)]
    results = [private_client.act(key, "sleep", 0.05, idempotency_key=key) for key in keys for _ in range(2)]
    for number in range(1, 9):
        eventually(partial(_has_done, ledger, 15 * number), within=30)
        # Where the workers were quicker, nothing begins any more but what waits for a lease, twenty seconds at most.
        eventually(lambda: _kill_one(ledger, redis_server) or _has_done(ledger, len(keys)), within=30)

    assert [result.get(timeout=60) for result in results] == [key for key in keys for _ in range(2)]
    for worker in workers:
        worker.stop()
    assert ledger.counts("done") == dict.fromkeys(keys, 1)
    assert sum(ledger.counts("start").values()) > len(keys)


def _has_done(ledger: Ledger, count: int) -> bool:
    return len(ledger.entries("done")) >= count


def _kill_one(ledger: Ledger, server: RedisServer) -> bool:
    """Kill the process that began a task last, unless that is between the end of its run and the note of it.

    What ends there is run again: nothing but the task itself could bring the two together.
    """
    last = ledger.entries("start")[-1]
    with suppress(psutil.NoSuchProcess):
        victim = psutil.Process(last.pid)
        victim.suspend()
        eventually(lambda: victim.status() == psutil.STATUS_STOPPED)
        own = [entry.key for entry in ledger.entries("start") if entry.pid == last.pid]
        if any(key in ledger.keys("done") and not is_noted(server, key) for key in own):
            victim.resume()
            return False
        victim.kill()
        return True
    return False
