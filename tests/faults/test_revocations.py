"""Revocations, and what supervisors tell other nodes, while workers and brokers die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from amqp_tasks.errors import TaskDied, TaskRevokedError, TimeLimitExceeded
from support import Ledger, PrivateNode, RawClient, WorkerProcesses, eventually
from support.conservation import reason_of
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
FAR = 600
"""Seconds that nobody waits for."""


def assert_nothing_twice_and_nothing_left(ledger: Ledger, raw: RawClient) -> None:
    """What was revoked is no dead letter, and what was not ran once."""
    assert set(ledger.counts("done").values()) <= {1}
    assert [raw.depth(name) for name in (QUEUE, f"{QUEUE}.dead")] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_promise_20_revocations_outlive_the_broker(
    private_node: PrivateNode,
    private_client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    how: str,
) -> None:
    """U076: said while no worker was there, before the broker went down."""
    first = worker_process("-c", "1", app=APP)
    private_client.act("before").get(timeout=10)
    assert first.stop() == 0
    # Not due when the broker goes down: what it moves in that moment it may move again.
    results = {f"key-{n}": private_client.act(f"key-{n}", countdown=10.0 * (n % 2)) for n in range(20)}
    revoked = {key for n, key in enumerate(results) if n % 3 == 0}
    private_client.app.control.revoke([results[key].id for key in revoked])

    if how == "restart":
        private_node.restart()
    else:
        private_node.kill()
        private_node.start()
    worker = worker_process("-c", "2", app=APP, within=30)

    for key, result in results.items():
        if key in revoked:
            with pytest.raises(TaskRevokedError):
                result.get(timeout=20)
        else:
            assert result.get(timeout=20) == key
    assert worker.stop() == 0
    assert not revoked & set(ledger.keys("start"))
    with RawClient(private_node.url) as raw:
        assert_nothing_twice_and_nothing_left(ledger, raw)


@pytest.mark.slow
def test_a_worker_hears_of_what_was_revoked_while_it_had_no_broker(
    private_node: PrivateNode, private_client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", "-l", "debug", app=APP)
    private_client.app.control.revoke("one")
    worker.wait_output("heeds journal entry: revoke")

    private_node.restart()
    private_client.app.control.revoke("two", timeout=20)
    worker.wait_output("heeds journal entry: revoke", count=2)

    for task_id in ("one", "two"):
        with pytest.raises(TaskRevokedError):
            private_client.act(task_id, task_id=task_id).get(timeout=10)
    assert worker.stop() == 0
    assert ledger.entries("start") == []


def test_a_worker_that_is_killed_while_it_terminates_tasks_leaves_them_revoked(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    first = worker_process("-c", "4", app=APP)
    results = {f"key-{n}": client.act(f"key-{n}", "sleep", FAR) for n in range(4)}
    ledger.wait_for("start", count=4)

    client.app.control.revoke([result.id for result in results.values()], terminate=True)
    first.kill_all()
    second = worker_process("-c", "2", app=APP)

    for result in results.values():
        with pytest.raises(TaskRevokedError):
            result.get(timeout=20)
    assert client.act("next").get(timeout=10) == "next"
    assert second.stop() == 0
    assert set(ledger.counts("start").values()) == {1}
    assert_nothing_twice_and_nothing_left(ledger, raw_client)


def test_a_process_that_dies_while_a_task_is_terminated_does_not_run_it_again(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("victim", "sleep", FAR)
    pid = ledger.wait_for("start", "victim")[0].pid

    # It is stopped, so that it cannot answer; and the redelivery comes while its supervisor still waits for it.
    os.kill(pid, signal.SIGSTOP)
    result.revoke(terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    assert client.act("next").get(timeout=10) == "next"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"victim": 1, "next": 1}
    assert "died" not in worker.output
    assert_nothing_twice_and_nothing_left(ledger, raw_client)


def test_promise_07_crashes_are_counted_over_nodes(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    workers = [worker_process("-c", "1", "-n", f"{name}@%h", app=APP) for name in "ab"]

    results = [client.act(f"boom-{n}", "signal", int(signal.SIGKILL)) for n in range(3)]

    for result in results:
        with pytest.raises(TaskDied, match=r"worker died: signal 9 \(SIGKILL\), 3 times"):
            result.get(timeout=30)
    assert ledger.counts("start") == {f"boom-{n}": 3 for n in range(3)}
    for worker in workers:
        assert worker.stop() == 0
    dead = [raw_client.get(f"{QUEUE}.dead") for _ in results]
    assert {reason_of(message) for message in dead} == {"crash-limit"}


def test_promise_07_crashes_are_known_after_the_end_of_their_node(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    first = worker_process("-c", "1", app=APP)
    result = client.act("boom", "wait", str(tmp_path / "never"))
    for run in (1, 2):
        os.kill(ledger.wait_for("start", "boom", count=run)[-1].pid, signal.SIGKILL)
    ledger.wait_for("start", "boom", count=3)

    first.kill_all()  # a machine that dies is not charged to what it ran
    second = worker_process("-c", "1", "-n", "second@%h", app=APP)
    os.kill(ledger.wait_for("start", "boom", count=4)[-1].pid, signal.SIGKILL)

    with pytest.raises(TaskDied, match="3 times"):
        result.get(timeout=20)
    assert second.stop() == 0
    assert ledger.counts("start")["boom"] == 4


def test_a_hard_limit_that_a_process_could_not_answer_for_is_known_to_the_other_node(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    workers = [worker_process("-c", "1", "-n", f"{name}@%h", app=APP) for name in "ab"]

    results = [client.act(f"deaf-{n}", "hog", FAR, time_limit=1.0) for n in range(2)]

    for result in results:
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=20)
    assert client.act("next").get(timeout=15) == "next"
    assert ledger.counts("start") == {"deaf-0": 1, "deaf-1": 1, "next": 1}
    for worker in workers:
        assert worker.stop() == 0


def test_a_process_that_dies_when_its_task_has_learnt_of_its_revocation_does_not_run_it_again(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = client.act("asks", "until-cancelled", "die")
    ledger.wait_for("start", "asks")

    result.revoke()

    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    assert client.act("next").get(timeout=10) == "next"
    assert worker.stop() == 0
    assert ledger.counts("start") == {"asks": 1, "next": 1}
    assert_nothing_twice_and_nothing_left(ledger, raw_client)


@pytest.mark.slow
def test_a_task_that_ran_through_a_restart_of_the_broker_learns_that_it_is_revoked(
    private_node: PrivateNode, private_client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = private_client.act("asks", "until-cancelled", "tidied up")
    ledger.wait_for("start", "asks")

    private_node.restart()
    private_client.app.control.revoke(result.id, timeout=20)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=30)
    ledger.wait_for("cancelled", "asks")
    # A node that ended before the broker had brought the message again would leave it there.
    eventually(lambda: private_node.vhost.queue(QUEUE)["messages"] == 0, within=20)
    assert worker.stop() == 0
    assert ledger.counts("start") == {"asks": 1}
    with RawClient(private_node.url) as raw:
        assert_nothing_twice_and_nothing_left(ledger, raw)
