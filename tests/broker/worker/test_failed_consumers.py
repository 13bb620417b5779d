"""A process that cannot consume any more, as its I/O thread has died, ends and is replaced; what it runs may end before."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import Ledger, WorkerProcess, WorkerProcesses, eventually
from support.worker_client import WorkerClient

pytestmark = pytest.mark.usefixtures("ledger")

APP = """
from pathlib import Path
from support import worker_app
from support.eventually import wait_until
from support.worker_app import app


def end_connections(key, gate):
    '''The first run of it ends the I/O thread, and then waits.'''
    died = Path("died")
    if died.exists():
        return "run again"
    loop = app.transport._started().loop
    loop.put(lambda _none: loop.call_later(0, fail))
    assert wait_until(lambda: loop._is_shut, within=10)
    died.touch()
    worker_app._wait_for(gate)
    return "run once"


def fail():
    raise RuntimeError("a fault of ours")


worker_app._ACTIONS["end connections"] = end_connections
"""


@pytest.fixture
def worker(worker_process: WorkerProcesses, tmp_path: Path) -> WorkerProcess:
    (tmp_path / "dying_app.py").write_text(APP)
    settings = {"AMQP_TASKS_WORKER_STOP_TIMEOUT": "1.5"}
    return worker_process("-P", "threads", "-c", "2", app="dying_app:app", env=settings)


def test_a_task_that_does_not_end_keeps_its_process_for_the_time_of_a_stop(
    client: WorkerClient, worker: WorkerProcess, tmp_path: Path
) -> None:
    hanging = client.act("hanging", "end connections", str(tmp_path / "never"))
    eventually((tmp_path / "died").exists, within=10)

    assert client.act("after").get(timeout=15) == "after"

    assert hanging.get(timeout=15) == "run again"
    assert "while it ran task" not in worker.output  # nobody is charged for that
    assert worker.stop() == 0


def test_a_task_that_ends_after_the_connections_is_not_run_again(
    client: WorkerClient, worker: WorkerProcess, ledger: Ledger, tmp_path: Path
) -> None:
    running = client.act("running", "end connections", str(tmp_path / "gate"))
    eventually((tmp_path / "died").exists, within=10)
    (tmp_path / "gate").touch()

    assert running.get(timeout=15) == "run once"
    assert client.act("after").get(timeout=15) == "after"
    assert worker.stop() == 0

    assert ledger.keys("start") == ["running", "after"]
