"""One command tells where everything is that was accepted and has not ended; with what has ended that is all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks.errors import TaskRevokedError
from support import Ledger, PrivateNode, WorkerProcesses, eventually
from support.worker_app import QUEUE
from support.worker_client import WorkerClient
from support.workers import TESTS


def account(node: PrivateNode, *arguments: str, management: str | None) -> Any:
    environment = {"AMQP_TASKS_BROKER_URL": node.url, "PYTHONPATH": str(TESTS)}
    if management is not None:
        environment["AMQP_TASKS_MANAGEMENT_URL"] = management
    command = [sys.executable, "-m", "amqp_tasks", "-A", "support.worker_app:app", "account", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr


@pytest.mark.slow
def test_promise_20_what_was_accepted_has_ended_or_is_where_one_command_says(
    private_node: PrivateNode,
    private_client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
) -> None:
    gate, url = tmp_path / "gate", private_node.vhost.management.url
    # Before there is a worker: it reads the journal first, then takes what is sent.
    private_client.app.control.revoke("revoked")
    worker = worker_process("-c", "1")
    ends = {"done": 2, "failed": 1, "revoked": 1, "expired": 1}
    for key in ("done-1", "done-2"):
        private_client.act(key).get(timeout=10)
    with pytest.raises(ValueError, match="fails"):
        private_client.act("failed", "fail").get(timeout=10)
    private_client.act("dead", "fail", ignore_result=True)
    with pytest.raises(TaskRevokedError):
        private_client.act("revoked", task_id="revoked").get(timeout=10)
    private_client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")
    expires = private_client.act("expired", expires=0.1)
    private_client.act("waits")
    for key in ("later-1", "later-2", "later-3"):
        private_client.act(key, countdown=3600)

    def found() -> Any:
        return account(private_node, "--json", management=url)

    def balances(ended: dict[str, int], dead: int, delayed: int) -> None:
        told = found()
        assert told["counts"] == {"accepted": 11, "unknown": 0, **ended}, told
        assert (told["difference"], told["dead"][f"{QUEUE}.dead"], told["delayed"]) == (0, dead, delayed), (
            told
        )

    # What runs, what waits and what will turn out to have expired.
    eventually(lambda: balances(ends | {"expired": 0}, dead=1, delayed=3), within=40)
    assert found()["total"] == 7

    gate.touch()
    with pytest.raises(TaskRevokedError):
        expires.get(timeout=20)
    ledger.wait_for("done", "waits")
    eventually(lambda: balances(ends | {"done": 4}, dead=1, delayed=3), within=40)
    assert found()["unfinished"] == 2

    assert worker.stop() == 0
    assert private_client.app.dead_letters.requeue().count == 1
    private_client.app.close()
    eventually(lambda: balances(ends | {"done": 4}, dead=0, delayed=3), within=20)
    assert found()["unfinished"] == 0
    assert re.search(r"missing +0\n", account(private_node, management=url))
    without = account(private_node, "--json", management=None)
    assert (without["total"], without["difference"]) == (None, None)
    assert "give --management" in account(private_node, management=None)


@pytest.mark.slow
def test_promise_20_a_killed_worker_leaves_its_tasks_accounted_for_and_is_named_among_the_unfinished(
    private_node: PrivateNode,
    private_client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
) -> None:
    gate, url = tmp_path / "gate", private_node.vhost.management.url
    first = worker_process("-c", "1")
    private_client.act("before").get(timeout=10)
    held = private_client.act("held", "wait", str(gate))
    ledger.wait_for("start", "held")

    def found() -> Any:
        return account(private_node, "--json", management=url)

    def balances(done: int) -> None:
        told = found()
        assert (told["counts"]["accepted"], told["counts"]["done"], told["difference"]) == (2, done, 0), told

    eventually(lambda: balances(1), within=40)
    first.kill_all()
    # What ran is back in its queue, and what had ended stays counted.
    eventually(lambda: balances(1), within=40)

    gate.touch()
    second = worker_process("-c", "1")
    assert held.get(timeout=20) == "held"
    assert second.stop() == 0
    private_client.app.close()
    eventually(lambda: balances(2), within=40)
    assert found()["unfinished"] == 1
    assert "have not said their last word" in account(private_node, management=url)
