"""A process that cannot consume any more ends and is replaced: when it is refused for good what it runs may end before, when its
I/O thread has died it ends at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqp_tasks.errors import TaskDied
from support import Ledger, WorkerProcess, WorkerProcesses, eventually
from support.worker_client import WorkerClient

pytestmark = pytest.mark.usefixtures("ledger")

APP = """
from pathlib import Path
from amqp_tasks.errors import BrokerAccessError
from support import worker_app
from support.worker_app import app


def fail_consumer(key, gate):
    '''The first run of it ends the consumer for good, and then waits.'''
    if Path("failed").exists():
        return "run again"
    core = app.transport._started()
    (consumer,) = core.consumers
    core.loop.put(lambda _none: consumer._fail(BrokerAccessError("refused")))
    Path("failed").touch()
    worker_app._wait_for(gate)
    return "run once"


def end_io_thread(key, runs):
    '''So many runs of it have the I/O thread end, and wait for what comes of that.'''
    before = worker_app._ledger().counts("start")[key] - 1
    if before < runs:
        loop = app.transport._started().loop
        loop.put(lambda _none: loop.call_later(0, fail))
        worker_app._wait_for("never")
    return before


def fail():
    raise RuntimeError("a fault of ours")


worker_app._ACTIONS["fail consumer"] = fail_consumer
worker_app._ACTIONS["end I/O thread"] = end_io_thread
"""


THREADS, PREFORK = ("-P", "threads", "-c", "2"), ("-c", "1")


def start(
    worker_process: WorkerProcesses, folder: Path, options: tuple[str, ...], *, stop_timeout: float
) -> WorkerProcess:
    (folder / "dying_app.py").write_text(APP)
    settings = {"AMQP_TASKS_WORKER_STOP_TIMEOUT": str(stop_timeout)}
    return worker_process(*options, app="dying_app:app", env=settings)


@pytest.fixture(params=[THREADS])
def worker(request: pytest.FixtureRequest, worker_process: WorkerProcesses, tmp_path: Path) -> WorkerProcess:
    """One that gives its tasks little time to end."""
    return start(worker_process, tmp_path, request.param, stop_timeout=1.5)


def test_a_task_that_does_not_end_keeps_its_process_for_the_time_of_a_stop(
    client: WorkerClient, worker: WorkerProcess, tmp_path: Path
) -> None:
    hanging = client.act("hanging", "fail consumer", str(tmp_path / "never"))
    eventually((tmp_path / "failed").exists, within=10)

    assert client.act("after").get(timeout=15) == "after"

    assert hanging.get(timeout=15) == "run again"
    assert "while it ran task" not in worker.output  # nobody is charged for that
    assert worker.stop() == 0


def test_a_task_that_ends_after_its_consumer_is_not_run_again(
    client: WorkerClient, worker_process: WorkerProcesses, ledger: Ledger, tmp_path: Path
) -> None:
    worker = start(worker_process, tmp_path, THREADS, stop_timeout=30)
    running = client.act("running", "fail consumer", str(tmp_path / "gate"))
    eventually((tmp_path / "failed").exists, within=10)
    (tmp_path / "gate").touch()

    assert running.get(timeout=15) == "run once"
    assert client.act("after").get(timeout=15) == "after"
    assert worker.stop() == 0

    assert ledger.keys("start") == ["running", "after"]


@pytest.mark.parametrize("worker", [THREADS, PREFORK], indirect=True)
def test_a_process_whose_io_thread_dies_ends_at_once_and_its_task_is_charged(
    client: WorkerClient, worker: WorkerProcess
) -> None:
    running = client.act("running", "end I/O thread", 2)
    after = client.act("after")

    assert running.get(timeout=15) == 2
    assert after.get(timeout=15) == "after"
    assert "for the 2. time" in worker.output
    assert worker.stop() == 0


def test_a_task_that_ends_the_io_thread_each_time_is_a_dead_letter_in_the_end(
    client: WorkerClient, worker: WorkerProcess
) -> None:
    running = client.act("running", "end I/O thread", 9)

    with pytest.raises(TaskDied):
        running.get(timeout=15)
    assert worker.stop() == 0
