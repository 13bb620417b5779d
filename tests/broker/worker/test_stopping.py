"""Warm and cold stops, signals, exit codes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")
POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "2"), ("-P", "solo"))


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_promise_15_a_warm_stop_finishes_what_runs_and_hands_back_the_rest(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    pool: tuple[str, ...],
    number: signal.Signals,
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process(*pool, "--prefetch-multiplier", "5", app=APP)
    running = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")
    more = [client.act(f"more-{n}", "wait", str(gate)) for n in range(9)]

    worker.signal(number)
    worker.wait_output("warm stop")
    eventually(lambda: _assert(raw_client.depth(QUEUE) == 1 + len(more) - len(ledger.keys("start"))))
    started = set(ledger.keys("start"))
    gate.touch()

    assert running.get(timeout=10) == "running"
    assert worker.wait() == 0
    assert set(ledger.keys("done")) == started
    assert_conserved({"running"} | {f"more-{n}" for n in range(9)}, ledger, raw_client)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_second_signal_stops_cold_and_requeues_what_runs(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    pool: tuple[str, ...],
) -> None:
    worker = worker_process(*pool, app=APP)
    client.act("stuck", "wait", str(tmp_path / "never"))
    ledger.wait_for("start", "stuck")

    worker.signal(signal.SIGTERM)
    worker.wait_output("warm stop")
    worker.signal(signal.SIGTERM)

    assert worker.wait(within=10) == 1
    assert worker.survivors() == []
    assert_conserved({"stuck"}, ledger, raw_client)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_the_deadline_of_a_warm_stop_is_kept(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    pool: tuple[str, ...],
) -> None:
    worker = worker_process(*pool, app=APP, env={"AMQP_TASKS_WORKER_STOP_TIMEOUT": "0.5"})
    client.act("stuck", "wait", str(tmp_path / "never"))
    ledger.wait_for("start", "stuck")

    assert worker.stop(within=10) == 1
    assert_conserved({"stuck"}, ledger, raw_client)


def test_a_ctrl_c_to_the_whole_process_group_is_one_warm_stop(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process("-c", "2", app=APP)
    result = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")

    os.killpg(worker.pid, signal.SIGINT)
    worker.wait_output("warm stop")
    gate.touch()

    assert result.get(timeout=10) == "running"
    assert worker.wait() == 0
    assert_conserved({"running"}, ledger, raw_client)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1])
def test_quit_prints_the_stacks_of_all_processes_and_changes_nothing_else(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process("-c", "1", app=APP)
    result = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")

    worker.signal(number)
    worker.wait_output("in _wait_for")
    worker.wait_output(r"_supervisor\.py")
    gate.touch()

    assert result.get(timeout=10) == "running"
    assert worker.stop() == 0


def test_a_stop_before_the_broker_is_there_ends_at_once(worker_process: WorkerProcesses) -> None:
    worker = worker_process(
        app=APP,
        ready="no broker yet",
        env={"AMQP_TASKS_BROKER_URL": "amqp://127.0.0.1:1//", "AMQP_TASKS_TEST_LEDGER": "unused"},
    )

    assert worker.stop(within=5) == 0


def _assert(condition: bool) -> None:
    assert condition
