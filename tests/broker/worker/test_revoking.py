"""Tasks that are revoked are not run, wherever they wait, and whoever waits is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amqp_tasks import App
from amqp_tasks.errors import TaskRevokedError, UnroutableError
from amqp_tasks.message import JOURNAL_NAME
from support import Ledger, RawClient, WorkerProcesses
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
POOLS = ("prefork", "threads", "solo")
pytestmark = pytest.mark.usefixtures("ledger")


@pytest.mark.parametrize("pool", POOLS)
def test_what_was_revoked_while_no_worker_was_there_is_not_run(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    """S102: `get()` raises TaskRevokedError. U076: a revocation reaches workers that were away."""
    queued = client.act("queued")
    delayed = client.act("delayed", countdown=2.0)
    pardoned = client.act("pardoned")
    client.app.control.revoke([queued.id, delayed.id, pardoned.id])
    client.app.control.unrevoke(pardoned.id)

    worker = worker_process("-c", "1", "-P", pool, app=APP)

    with pytest.raises(TaskRevokedError, match="revoked"):
        queued.get(timeout=10)
    assert queued.state == "REVOKED"
    assert pardoned.get(timeout=10) == "pardoned"
    with pytest.raises(TaskRevokedError):
        delayed.get(timeout=10)
    assert worker.stop() == 0
    assert ledger.keys("start") == ["pardoned"]
    assert raw_client.depth(QUEUE) == raw_client.depth(f"{QUEUE}.dead") == 0


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_busy_worker_holds_is_not_run(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, pool: str
) -> None:
    """U077: prefetched and delayed tasks are asked for when a slot is about to run them."""
    worker = worker_process("-c", "1", "-P", pool, "-l", "debug", "--prefetch-multiplier", "5", app=APP)
    gate = tmp_path / "gate"
    running = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")
    behind = client.act("behind")
    early = client.act("early", countdown=0.9)

    behind.revoke()
    client.app.control.revoke(iter([early.id, running.id]))
    sentinel = client.act("sentinel")
    worker.wait_output("told of 1 journal entries", count=2)
    gate.touch()

    # One that runs is let run, as it was not to be terminated.
    assert running.get(timeout=10) == "running"
    for result in (behind, early):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)
    assert sentinel.get(timeout=10) == "sentinel"
    assert worker.stop() == 0
    assert ledger.keys("start") == ["running", "sentinel"]


def test_all_processes_and_their_successors_know(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    revoked = [f"revoked-{number}" for number in range(20)]
    client.app.control.revoke(revoked)
    worker = worker_process("-c", "2", "--max-tasks-per-child", "1", app=APP)

    for number, task_id in enumerate(revoked):
        with pytest.raises(TaskRevokedError):
            client.act(task_id, task_id=task_id).get(timeout=10)
        if number % 5 == 0:
            assert client.act(f"good-{number}").get(timeout=10) == f"good-{number}"

    assert worker.stop() == 0
    assert ledger.keys("start") == ["good-0", "good-5", "good-10", "good-15"]


def test_strange_entries_stop_no_worker(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    client.app.control.revoke("first")
    for body in (b"", b"null", b"\xff\x00", b'{"kind": "revoke"}', b"[" * 100_000, b"x" * 600_000):
        raw_client.publish(JOURNAL_NAME, body)
    wrong = {"kind": "revoke", "id": "i", "time": 0, "sender": "s", "facts": {"ids": 3}}
    raw_client.publish(JOURNAL_NAME, json.dumps(wrong).encode())

    worker = worker_process("-c", "1", "-l", "debug", app=APP)
    with pytest.raises(TaskRevokedError):
        client.act("1", task_id="first").get(timeout=10)
    raw_client.publish(JOURNAL_NAME, json.dumps({**wrong, "time": 10**400}).encode())
    client.app.control.revoke("second")
    worker.wait_output("told of 1 journal entries", count=2)
    with pytest.raises(TaskRevokedError):
        client.act("2", task_id="second").get(timeout=10)
    assert client.act("3").get(timeout=10) == "3"

    assert worker.stop() == 0
    assert ledger.keys("start") == ["3"]


def test_a_worker_without_a_journal_says_so_and_works(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    client.act("1")

    worker = worker_process("-c", "1", "-l", "debug", app=APP, env={"AMQP_TASKS_TOPOLOGY": "none"})

    ledger.wait_for("done", "1")
    assert raw_client.depth(JOURNAL_NAME) == -1
    worker.wait_output("journal .* is not on the broker: run `amqp-tasks topology apply`")
    remedy = "run `amqp-tasks topology apply`"
    with (
        App("other", broker=client.app.conf.broker_url, topology="none") as other,
        pytest.raises(UnroutableError, match=remedy),
    ):
        other.control.revoke("x")
    # It is looked for again and again.
    client.app.control.revoke("x")
    worker.wait_output("told of 1 journal entries")
    with pytest.raises(TaskRevokedError):
        client.act("2", task_id="x").get(timeout=10)
    assert worker.stop() == 0
    assert worker.output.count("is not on the broker") == 1
