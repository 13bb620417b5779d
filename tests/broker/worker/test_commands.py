"""Commands that a worker refuses are not done, whenever they were said, and are logged with their sender."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqp_tasks.errors import TaskRevokedError
from amqp_tasks.message import current_origin
from support import Ledger, WorkerProcesses
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
POOLS = ("prefork", "threads", "solo")
OFF = {"AMQP_TASKS_WORKER_ENABLE_REMOTE_CONTROL": "false"}
MILD = {"AMQP_TASKS_WORKER_ACCEPT_COMMANDS": "revoke,pause"}
pytestmark = pytest.mark.usefixtures("ledger")


@pytest.mark.parametrize("pool", POOLS)
def test_p183_a_worker_without_remote_control_does_nothing_that_is_said_before_or_after_its_start(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, pool: str
) -> None:
    client.app.control.revoke(["before", "later"])
    client.app.control.pause(QUEUE)
    worker = worker_process("-c", "1", "-P", pool, app=APP, env=OFF)
    worker.wait_output("2 commands that were said before are refused")

    client.app.control.revoke("after")
    client.app.control.pause(QUEUE)
    client.app.control.rate_limit("act", "1/h")

    sender = re.escape(current_origin())
    for kind in ("revoke", "pause", "rate_limit"):
        worker.wait_output(rf"WARNING.*journal: {kind} by {sender} is refused")
    for key in ("before", "after", "later"):
        assert client.act(key, task_id=key).get(timeout=10) == key
    assert worker.stop() == 0
    assert ledger.keys("start") == ["before", "after", "later"]
    assert len(re.findall("is refused", worker.output)) == 3


def test_a_worker_that_refuses_to_terminate_lets_the_task_end_and_revokes_it(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    worker = worker_process("-c", "1", app=APP, env=MILD)
    gate = tmp_path / "gate"
    running = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")
    behind = client.act("behind")

    client.app.control.terminate([running.id, behind.id])
    sender = re.escape(current_origin())
    worker.wait_output(rf"WARNING.*journal: revoke by {sender}, without the termination")
    gate.touch()

    assert running.get(timeout=10) == "running"
    with pytest.raises(TaskRevokedError):
        behind.get(timeout=10)
    assert worker.stop() == 0
    assert ledger.keys("start") == ["running"]


def test_each_command_that_is_heeded_is_logged_with_its_sender(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", "-l", "info", app=APP)
    control = client.app.control

    control.revoke("a")
    control.unrevoke("a")
    control.revoke_by_stamped_headers({"batch": "b"})
    control.unrevoke_by_stamped_headers({"batch": "b"})
    control.pause(QUEUE)
    control.resume(QUEUE)
    control.rate_limit("act", "1000/s")

    sender = re.escape(current_origin())
    for kind in ("revoke", "unrevoke", "revoke-stamps", "unrevoke-stamps", "pause", "resume", "rate_limit"):
        worker.wait_output(rf"INFO.*journal: {kind} by {sender}$")
    assert worker.stop() == 0
