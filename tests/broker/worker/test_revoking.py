"""Tasks that are revoked are not run, wherever they wait, and whoever waits is told."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from amqp_tasks import App
from amqp_tasks.errors import TaskDied, TaskRevokedError, UnroutableError
from amqp_tasks.message import JOURNAL_NAME
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.retry_app import QUEUE as RETRY_QUEUE
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
FAR = 600
"""Seconds that nobody waits for."""
POOLS = ("prefork", "threads", "solo")
pytestmark = pytest.mark.usefixtures("ledger")


@pytest.mark.parametrize("pool", POOLS)
def test_what_was_revoked_while_no_worker_was_there_is_not_run(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    """S102: `get()` raises TaskRevokedError. U076: a revocation reaches workers that were away. Row U074."""
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
    worker.wait_output("heeds journal entry: revoke", count=2)
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
    worker.wait_output("heeds journal entry: revoke", count=2)
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
    worker.wait_output("heeds journal entry: revoke")
    with pytest.raises(TaskRevokedError):
        client.act("2", task_id="x").get(timeout=10)
    assert worker.stop() == 0
    assert worker.output.count("is not on the broker") == 1


def test_a_running_task_is_terminated_with_its_process_and_nothing_else(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
) -> None:
    """P173: `terminate` and lists of ids."""
    worker = worker_process("-c", "2", app=APP)
    gate = tmp_path / "gate"
    victim = client.act("victim", "sleep", FAR)
    neighbour = client.act("neighbour", "wait", str(gate))
    ledger.wait_for("start", count=2)
    pids = {entry.key: entry.pid for entry in ledger.entries("start")}

    client.app.control.revoke([victim.id, "other"], terminate=True)

    with pytest.raises(TaskRevokedError, match="terminated"):
        victim.get(timeout=15)
    eventually(lambda: pids["victim"] not in worker.children())
    assert client.act("next").get(timeout=15) == "next"
    gate.touch()
    assert neighbour.get(timeout=15) == "neighbour"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"victim": 1, "neighbour": 1, "next": 1}
    assert {entry.key: entry.pid for entry in ledger.entries("done")}["neighbour"] == pids["neighbour"]
    assert "died" not in worker.output
    assert raw_client.depth(QUEUE) == raw_client.depth(f"{QUEUE}.dead") == 0


def test_a_task_with_a_handler_gets_the_signal_and_may_clean_up(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("neat", "clean-up", "SIGINT")
    pid = ledger.wait_for("start", "neat")[0].pid
    ledger.wait_for("handles", "neat")

    result.revoke(terminate=True, signal="int")

    with pytest.raises(TaskRevokedError):
        result.get(timeout=15)
    ledger.wait_for("cleaned", "neat")
    eventually(lambda: pid not in worker.children(), within=10)
    assert worker.stop() == 0
    assert ledger.counts("start") == {"neat": 1}


def test_what_cannot_end_itself_is_killed_and_not_run_again(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("deaf", "hog", FAR)
    ledger.wait_for("start", "deaf")

    result.revoke(terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=15)
    assert client.act("next").get(timeout=15) == "next"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"deaf": 1, "next": 1}
    assert "died" not in worker.output
    assert raw_client.depth(f"{QUEUE}.dead") == 0


@pytest.mark.parametrize("ending", [("ok",), ("signal", signal.SIGKILL)], ids=["returned", "died"])
def test_it_is_too_late_to_terminate_a_task_that_has_ended(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    ending: tuple[str | int, ...],
) -> None:
    worker = worker_process("-c", "2", app=APP, env={"AMQP_TASKS_TASK_CRASH_LIMIT": "1"})
    gate = tmp_path / "gate"
    ended = client.app.send_task("act_lingering", ("ended", str(gate), *ending))
    ledger.wait_for("hook", "ended")
    deaf = client.act("deaf", "hog", FAR)
    ledger.wait_for("start", "deaf")

    client.app.control.revoke([ended.id, deaf.id], terminate=True)
    with pytest.raises(TaskRevokedError):
        deaf.get(timeout=15)  # its process was killed, and the other's would have been with it
    gate.touch()

    with nullcontext() if ending == ("ok",) else pytest.raises(TaskDied):
        assert ended.get(timeout=10) == "ended"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"ended": 1, "deaf": 1}
    assert ledger.counts("hook") == {"ended": 1}


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_cannot_terminate_says_so(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, pool: str
) -> None:
    worker = worker_process("-c", "1", "-P", pool, app=APP)
    gate = tmp_path / "gate"
    result = client.act("stays", "wait", str(gate))
    ledger.wait_for("start", "stays")

    result.revoke(terminate=True)
    worker.wait_output("is to be terminated, which only the pool 'prefork' can do: it goes on")
    gate.touch()

    assert result.get(timeout=10) == "stays"
    assert worker.stop() == 0


def test_a_retry_of_a_revoked_task_is_refused(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", "-l", "debug", app="support.retry_app:app")
    with App("caller", broker=client.app.conf.broker_url, task_default_queue=RETRY_QUEUE) as caller:
        result = caller.send_task("again", (1, 2.0))
        ledger.wait_for("run 0", result.id)
        eventually(lambda: result.state == "RETRY")

        result.revoke()

        with pytest.raises(TaskRevokedError):
            result.get(timeout=15)
    assert worker.stop() == 0
    assert ledger.counts("run 1")[result.id] == 0


def test_a_running_task_can_be_revoked_during_a_warm_stop(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    """U063."""
    worker = worker_process("-c", "1", app=APP)
    result = client.act("long", "sleep", FAR)
    ledger.wait_for("start", "long")
    worker.signal(signal.SIGTERM)
    worker.wait_output("warm stop")

    result.revoke(terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=15)
    assert worker.wait() == 0


def test_a_revocation_is_heeded_for_worker_journal_max_age_and_no_longer(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    env = {"AMQP_TASKS_WORKER_JOURNAL_MAX_AGE": "6"}

    def is_run() -> bool:
        try:
            return bool(client.act("again", task_id="again").get(timeout=10) == "again")
        except TaskRevokedError:
            return False

    worker = worker_process("-c", "1", app=APP, env=env)
    client.app.control.revoke("again")
    eventually(lambda: not is_run())
    eventually(is_run, within=20)
    assert worker.stop() == 0

    # Nor does one that starts then heed it, though it reads the stream from its first entry.
    worker = worker_process("-c", "1", app=APP, env=env)
    assert is_run()
    assert worker.stop() == 0


def test_the_journal_is_declared_with_worker_journal_max_age(
    worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_WORKER_JOURNAL_MAX_AGE": "3600"})

    assert vhost.management.queue(vhost.name, JOURNAL_NAME)["arguments"]["x-max-age"] == "3600s"


@pytest.mark.parametrize("pool", POOLS)
def test_a_running_task_that_asks_learns_that_it_is_revoked_and_may_end_so(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    """Row P056."""
    worker = worker_process("-c", "1", "-P", pool, app=APP)
    result = client.act("asks", "until-cancelled", "tidied up")
    ledger.wait_for("start", "asks")

    result.revoke()

    with pytest.raises(TaskRevokedError, match="tidied up"):
        result.get(timeout=10)
    assert result.state == "REVOKED"
    assert client.act("next").get(timeout=10) == "next"
    assert worker.stop() == 0
    assert ledger.keys("start") == ["asks", "next"]
    assert raw_client.depth(QUEUE) == raw_client.depth(f"{QUEUE}.dead") == 0


def test_what_a_revoked_task_returns_all_the_same_counts(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("asks", "until-cancelled", "return")
    ledger.wait_for("start", "asks")

    result.revoke()

    assert result.get(timeout=10) == "asks"
    assert worker.stop() == 0


def test_a_running_task_learns_that_its_stamp_is_revoked(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("asks", "until-cancelled", "by stamp", stamps={"batch": "b-1"})
    ledger.wait_for("start", "asks")

    client.app.control.revoke_by_stamped_headers({"batch": "b-1"})

    with pytest.raises(TaskRevokedError, match="by stamp"):
        result.get(timeout=10)
    assert worker.stop() == 0


def test_revoked_without_being_so_is_an_error_like_any_other(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)

    result = client.act("boasts", "revoked-error")

    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    assert (result.state, worker.stop()) == ("FAILURE", 0)
