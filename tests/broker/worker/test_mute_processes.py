"""A new process that says nothing is replaced after `worker_proc_alive_timeout`. Row P142."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from support import WorkerProcesses, eventually
from support.worker_client import WorkerClient

pytestmark = pytest.mark.usefixtures("ledger")
DEFAULT = 4.0
APP = """
import os, signal
from pathlib import Path
from support.worker_app import app

forks = 0


def fall_mute_in_the_first_process():
    global forks
    forks += 1
    mute = Path("mute")
    if forks == 2 and not mute.exists():  # the first fork is the template
        Path("mute.new").write_text(str(os.getpid()))
        os.rename("mute.new", mute)
        while True:
            signal.pause()


os.register_at_fork(after_in_child=fall_mute_in_the_first_process)
"""


def test_a_process_that_gives_no_sign_of_life_is_killed_after_the_timeout_and_replaced(
    client: WorkerClient, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    (tmp_path / "mute_app.py").write_text(APP)
    mute = tmp_path / "mute"
    worker = worker_process(
        "-c", "1", app="mute_app:app", env={"AMQP_TASKS_WORKER_PROC_ALIVE_TIMEOUT": "1"}, ready=None
    )
    eventually(mute.exists, within=20)

    eventually(lambda: not psutil.pid_exists(int(mute.read_text())), within=DEFAULT * 0.75)
    assert client.act("after").get(timeout=20) == "after"
    worker.wait_output("gave no sign of life")
    assert worker.stop() == 0


def test_a_process_that_is_slow_to_start_is_given_the_time_it_is_allowed(
    client: WorkerClient, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    (tmp_path / "mute_app.py").write_text(
        APP.replace("while True:\n            signal.pause()", "signal.sigtimedwait([], 5)")
    )
    worker = worker_process(
        "-c", "1", app="mute_app:app", env={"AMQP_TASKS_WORKER_PROC_ALIVE_TIMEOUT": "30"}, within=30
    )

    assert client.act("after").get(timeout=20) == "after"
    assert "gave no sign of life" not in worker.output
    assert worker.stop() == 0
