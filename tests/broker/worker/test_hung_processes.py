"""A process that gives no sign of life and does not work is killed, replaced, and charged to what it ran. Row U059."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from amqp_tasks.errors import TaskDied
from support import Ledger, WorkerProcess, WorkerProcesses, eventually
from support.eventually import let_pass
from support.worker_client import Holding, WorkerClient

TIMEOUT = 2.0
FAR = 600


@pytest.fixture
def start(worker_process: WorkerProcesses) -> Callable[..., WorkerProcess]:
    """A worker that soon notices who hangs."""

    def start(*options: str) -> WorkerProcess:
        env = {"AMQP_TASKS_WORKER_HUNG_TIMEOUT": str(TIMEOUT)}
        return worker_process(*options, app="support.worker_app:app", env=env)

    return start


def test_an_idle_process_that_is_stopped_is_replaced_and_tasks_flow(
    client: WorkerClient, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "1")
    client.act("before").get(timeout=10)
    (done,) = ledger.entries("done")

    os.kill(done.pid, signal.SIGSTOP)

    assert client.act("after").get(timeout=15) == "after"
    assert not psutil.pid_exists(done.pid)
    assert "while it ran task" not in worker.output
    assert worker.stop() == 0


def test_what_a_stopped_process_ran_is_charged_and_runs_again(
    hold: Holding, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "2")
    result = hold("victim")

    os.kill(ledger.entries("start")[0].pid, signal.SIGSTOP)
    ledger.wait_for("start", "victim", count=2)
    hold.release()

    assert result.get(timeout=10) == "victim"
    worker.wait_output("while it ran task .* for the 1. time")
    assert worker.stop() == 0


def test_a_task_that_hangs_with_the_interpreter_each_time_is_a_dead_letter_in_the_end(
    client: WorkerClient, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "1")
    hanging = client.act("deaf", "hog", FAR)

    with pytest.raises(TaskDied, match="3 times"):
        hanging.get(timeout=19)
    assert ledger.counts("start")["deaf"] == 3
    assert worker.stop() == 0


def test_c_code_that_holds_the_interpreter_and_works_is_left_alone(
    client: WorkerClient, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "1")

    assert client.act("busy", "grind", 3 * TIMEOUT).get(timeout=15) == "busy"

    assert client.act("after").get(timeout=10) == "after"
    assert len({entry.pid for entry in ledger.entries("done")}) == 1
    assert worker.stop() == 0


def test_a_process_that_stops_warm_gives_signs_while_its_task_runs(
    client: WorkerClient, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "1")
    running = client.act("running", "sleep", 2.5 * TIMEOUT)
    ledger.wait_for("start", "running")

    assert worker.stop() == 0

    assert running.get(timeout=10) == "running"
    assert ledger.counts("start") == {"running": 1}


def test_a_node_that_was_stopped_as_a_whole_goes_on_with_its_processes(
    client: WorkerClient, ledger: Ledger, start: Callable[..., WorkerProcess]
) -> None:
    worker = start("-c", "2")
    before = set(worker.children())
    node = [*before, worker.pid]

    for pid in node:
        os.kill(pid, signal.SIGSTOP)
    let_pass(1.5 * TIMEOUT)
    for pid in reversed(node):
        os.kill(pid, signal.SIGCONT)

    assert client.act("after", "sleep", 1.5 * TIMEOUT).get(timeout=15) == "after"
    eventually(lambda: set(worker.children()) == before)
    assert worker.stop() == 0
