"""Warm and cold stops, signals, exit codes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import Holding, WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")
POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "2"), ("-P", "solo"))


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_promise_15_a_warm_stop_finishes_what_runs_and_hands_back_the_rest(
    client: WorkerClient,
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: tuple[str, ...],
    number: signal.Signals,
) -> None:
    """Row U062."""
    worker = worker_process(*pool, "--prefetch-multiplier", "5", app=APP)
    running = hold("running")
    more = [client.act(f"more-{n}", "wait", str(hold.gate)) for n in range(9)]

    worker.signal(number)
    worker.wait_output("warm stop")
    eventually(lambda: raw_client.depth(QUEUE) == 1 + len(more) - len(ledger.keys("start")))
    started = set(ledger.keys("start"))
    hold.release()

    assert running.get(timeout=10) == "running"
    assert worker.wait() == 0
    assert set(ledger.keys("done")) == started
    assert_conserved({"running"} | {f"more-{n}" for n in range(9)}, ledger, raw_client)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_second_signal_stops_cold_and_requeues_what_runs(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: tuple[str, ...],
) -> None:
    worker = worker_process(*pool, app=APP)
    hold("stuck")

    worker.signal(signal.SIGTERM)
    worker.wait_output("warm stop")
    worker.signal(signal.SIGTERM)

    assert worker.wait(within=10) == 1
    assert worker.survivors() == []
    assert_conserved({"stuck"}, ledger, raw_client)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_the_deadline_of_a_warm_stop_is_kept(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: tuple[str, ...],
) -> None:
    """Row U060."""
    worker = worker_process(*pool, app=APP, env={"AMQP_TASKS_WORKER_STOP_TIMEOUT": "0.5"})
    hold("stuck")

    assert worker.stop(within=10) == 1
    assert_conserved({"stuck"}, ledger, raw_client)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_stops_that_a_task_outlasts_are_not_counted_as_crashes_of_it(
    client: WorkerClient,
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    pool: tuple[str, ...],
) -> None:
    result, limit = client.act("long", "wait", str(hold.gate)), 3
    for stops in range(limit + 1):
        worker = worker_process(*pool, app=APP, env={"AMQP_TASKS_WORKER_STOP_TIMEOUT": "0.2"})
        ledger.wait_for("start", "long", count=stops + 1)
        if stops < limit:
            assert worker.stop(within=10) == 1
            assert " died (" not in worker.output

    hold.release()

    assert result.get(timeout=10) == "long"
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_p135_a_remapped_term_stops_cold_and_requeues_what_runs(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: tuple[str, ...],
) -> None:
    worker = worker_process(*pool, app=APP, env={"REMAP_SIGTERM": "SIGQUIT"})
    hold("stuck")

    worker.signal(signal.SIGTERM)

    # The default of a warm stop is half a minute.
    assert worker.wait(within=10) == 1
    assert worker.survivors() == []
    assert_conserved({"stuck"}, ledger, raw_client)


def test_p133_a_remapped_term_is_soft_where_a_time_for_that_is_set(
    hold: Holding, worker_process: WorkerProcesses
) -> None:
    soft = {"REMAP_SIGTERM": "SIGQUIT", "AMQP_TASKS_WORKER_SOFT_SHUTDOWN_TIMEOUT": "20"}
    worker = worker_process("-c", "1", app=APP, env=soft)
    result = hold("running")

    worker.signal(signal.SIGTERM)
    worker.wait_output("warm stop")
    hold.release()

    assert result.get(timeout=10) == "running"
    assert worker.wait() == 0


@dataclass(frozen=True)
class Stop:
    """How a node is stopped while deliveries are in all states, and what that does to those that run."""

    signals: tuple[signal.Signals, ...]
    env: Mapping[str, str]
    opens_gate: bool
    status: int


STOPS = {
    "warm": Stop((signal.SIGTERM,), {}, opens_gate=True, status=0),
    "second signal": Stop((signal.SIGTERM, signal.SIGINT), {}, opens_gate=False, status=1),
    "deadline": Stop(
        (signal.SIGTERM,), {"AMQP_TASKS_WORKER_STOP_TIMEOUT": "0.5"}, opens_gate=False, status=1
    ),
    "cold": Stop((signal.SIGTERM,), {"REMAP_SIGTERM": "SIGQUIT"}, opens_gate=False, status=1),
    "killed": Stop((signal.SIGKILL,), {}, opens_gate=False, status=-9),
}


@pytest.mark.parametrize("how", STOPS)
def test_promise_20_a_stop_with_deliveries_in_all_states_loses_none(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    how: str,
) -> None:
    """Rows U062, U088."""
    stop, gate = STOPS[how], tmp_path / "gate"
    worker = worker_process("-c", "2", "--prefetch-multiplier", "40", app=APP, env=stop.env)
    # Held for their turn, in the timer wheel, held for their eta, running, ready behind those, retried.
    sent = {f"paced-{number}" for number in range(30)} | {f"slow-{number}" for number in range(3)}
    for key in sorted(sent):
        client.app.send_task("paced" if key.startswith("paced") else "paced_slowly", (key,))
    for number in range(5):
        client.act(f"early-{number}", countdown=1.9)
    for number in range(12):
        client.act(f"waiting-{number}", "wait", str(gate))
    client.app.send_task("paced_again", ("again",))
    sent |= (
        {f"early-{number}" for number in range(5)} | {f"waiting-{number}" for number in range(12)} | {"again"}
    )
    eventually(lambda: sum(key.startswith("waiting") for key in ledger.keys("start")) >= 2)

    for number, each in enumerate(stop.signals):
        if number:
            worker.wait_output("warm stop")
        worker.signal(each)
    if stop.opens_gate:
        worker.wait_output("warm stop")
        gate.touch()

    assert worker.wait() == stop.status
    assert worker.survivors() == []
    done = set(ledger.keys("done"))
    assert done < sent
    gate.touch()
    second = worker_process("-c", "2", app=APP)
    eventually(lambda: set(ledger.keys("done")) == sent, within=30)
    assert second.stop() == 0
    assert_conserved(sent, ledger, raw_client)
    if how == "warm":
        # What was begun has ended and was settled; nothing is run twice.
        assert max(ledger.counts("done").values()) == 1


def test_a_solo_worker_stops_taking_while_its_task_still_runs(
    client: WorkerClient,
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
) -> None:
    """Row U064."""
    worker = worker_process("--pool", "solo", app=APP)
    result = hold("running")

    worker.signal(signal.SIGTERM)
    worker.wait_output("warm stop")
    client.act("later")
    eventually(lambda: raw_client.depth(QUEUE) == 1, within=10)
    hold.release()

    assert result.get(timeout=10) == "running"
    assert worker.wait() == 0
    assert_conserved({"running", "later"}, ledger, raw_client)


def test_a_ctrl_c_to_the_whole_process_group_is_one_warm_stop(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
) -> None:
    worker = worker_process("-c", "2", app=APP)
    result = hold("running")

    os.killpg(worker.pid, signal.SIGINT)
    worker.wait_output("warm stop")
    hold.release()

    assert result.get(timeout=10) == "running"
    assert worker.wait() == 0
    assert_conserved({"running"}, ledger, raw_client)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1])
def test_quit_prints_the_stacks_of_all_processes_and_changes_nothing_else(
    hold: Holding,
    worker_process: WorkerProcesses,
    number: signal.Signals,
) -> None:
    worker = worker_process("-c", "1", app=APP)
    result = hold("running")

    worker.signal(number)
    worker.wait_output("in _wait_for")
    worker.wait_output(r"_supervisor\.py")
    hold.release()

    assert result.get(timeout=10) == "running"
    assert worker.stop() == 0


def test_the_stacks_of_each_process_are_printed_apart(worker_process: WorkerProcesses) -> None:
    worker = worker_process("-c", "4", app=APP)

    worker.signal(signal.SIGQUIT)
    worker.wait_output("Current thread", count=5)
    worker.wait_output(r"Worker-\d+, process \d+:", count=4)

    assert worker.stop() == 0
    _, *parts = re.split(r"Worker-\d+, process \d+:\n", worker.output)
    for part in parts:
        assert part.count("Current thread") == 1
        frames = [line for line in part.splitlines() if "File " in line]
        assert frames
        assert all(re.fullmatch(r'  File ".*", line \d+ in \S+', line) for line in frames)


def test_a_stop_before_the_broker_is_there_ends_at_once(worker_process: WorkerProcesses) -> None:
    worker = worker_process(
        app=APP,
        ready="no broker yet",
        env={"AMQP_TASKS_BROKER_URL": "amqp://127.0.0.1:1//", "AMQP_TASKS_TEST_LEDGER": "unused"},
    )

    assert worker.stop(within=5) == 0
