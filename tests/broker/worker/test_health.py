"""A worker says whether it works and whether it takes tasks: rows U002, U009, U011."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from support import RawClient, WorkerProcess, WorkerProcesses, eventually
from support.health import Health
from support.worker_app import QUEUE
from support.worker_client import Holding, WorkerClient

POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "2"), ("-P", "solo"))
pytestmark = pytest.mark.usefixtures("client", "ledger")

Start = Callable[..., WorkerProcess]


@pytest.fixture
def health(tmp_path: Path) -> Health:
    return Health(tmp_path / "health.json")


@pytest.fixture
def start(worker_process: WorkerProcesses, health: Health) -> Start:
    """A worker with a health file."""

    def start(*options: str, **env: str) -> WorkerProcess:
        return worker_process(*options, "--health-file", str(health.path), env=env)

    return start


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_worker_says_what_it_consumes_and_runs_and_leaves_no_file(
    start: Start, health: Health, hold: Holding, pool: tuple[str, ...]
) -> None:
    worker = start(*pool, "-Q", f"{QUEUE},other", "-n", "mail@box")
    eventually(lambda: health.is_ready)
    assert health.is_live

    result = hold("held")
    eventually(lambda: sum(each["running"] for each in health.report["processes"]) == 1)
    report = health.report
    assert (report["node"], report["pid"], report["state"]) == ("mail@box", worker.pid, "running")
    assert (report["consumers_ok"], report["is_connected"]) == (True, True)
    processes = {each["pid"]: each for each in report["processes"]}
    expected = {worker.pid} if pool[1] == "solo" else set(worker.children())
    assert set(processes) <= expected
    assert len(processes) == (2 if pool[1] == "prefork" else 1)
    assert all(set(each["consumed"]) == {QUEUE, "other"} for each in processes.values())
    assert all(each["silent_for"] < 5 for each in processes.values())
    assert health.is_ready  # though busy

    hold.release()
    assert result.get(timeout=10) == "held"
    assert worker.stop() == 0
    assert not health.path.exists()
    assert "no worker has been started with it, or it has ended" in health.ask("--live")


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_paused_queue_is_not_missed(
    start: Start, health: Health, client: WorkerClient, raw_client: RawClient, pool: tuple[str, ...]
) -> None:
    worker = start(*pool)
    eventually(lambda: health.is_ready)

    client.app.control.pause(QUEUE)
    eventually(lambda: raw_client.consumers(QUEUE) == 0)
    eventually(lambda: health.report["paused"] == [QUEUE])
    eventually(lambda: {tuple(each["consumed"]) for each in health.report["processes"]} == {()})
    assert health.is_ready

    client.app.control.resume(QUEUE)
    eventually(lambda: {tuple(each["consumed"]) for each in health.report["processes"]} == {(QUEUE,)})
    assert health.is_ready
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_queue_that_is_deleted_is_missed_until_it_is_back(
    start: Start, health: Health, client: WorkerClient, raw_client: RawClient, pool: tuple[str, ...]
) -> None:
    """Row U011. One that may declare brings the queue back by itself."""
    assert start(*pool).stop() == 0
    worker = start(*pool, AMQP_TASKS_TOPOLOGY="check")
    eventually(lambda: health.is_ready)

    raw_client.delete(QUEUE)
    eventually(lambda: f"does not consume '{QUEUE}'" in health.ask(), within=10)
    assert health.is_live
    assert health.report["consumers_ok"] is False

    after = client.act("after")  # declares it

    eventually(lambda: health.is_ready, within=10)
    assert after.get(timeout=10) == "after"
    assert worker.stop() == 0


def test_a_process_that_is_replaced_leaves_it_ready(
    start: Start, health: Health, client: WorkerClient
) -> None:
    worker = start("-c", "2", "--max-tasks-per-child", "2")
    eventually(lambda: health.is_ready)
    before = {each["pid"] for each in health.report["processes"]}

    for number in range(12):
        client.act(f"task-{number}").get(timeout=10)
        assert health.is_ready, health.ask()

    eventually(lambda: not before & {each["pid"] for each in health.report["processes"]})
    assert worker.stop() == 0


def test_a_silent_process_is_not_ready_until_it_is_replaced(start: Start, health: Health) -> None:
    """Row U059: the supervisor replaces it, so nobody need restart the node."""
    worker = start("-c", "2", AMQP_TASKS_WORKER_HUNG_TIMEOUT="14")
    eventually(lambda: health.is_ready)
    (hung, other) = (each["pid"] for each in health.report["processes"])

    os.kill(hung, signal.SIGSTOP)

    eventually(lambda: f"process {hung} has given no sign of life" in health.ask(), within=14)
    assert health.is_live
    eventually(lambda: health.is_ready, within=14)
    assert hung not in {each["pid"] for each in health.report["processes"]}
    assert other in {each["pid"] for each in health.report["processes"]}
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_node_that_is_killed_or_stopped_says_nothing_any_more(
    start: Start, health: Health, pool: tuple[str, ...], number: signal.Signals
) -> None:
    worker = start(*pool, AMQP_TASKS_WORKER_HUNG_TIMEOUT="10")
    eventually(lambda: health.is_ready)

    worker.signal(number)

    eventually(lambda: "it was killed, is stopped or hangs: restart it" in health.ask("--live"), within=12)
    assert not health.is_ready


def test_the_file_of_a_killed_worker_is_taken_over_and_that_of_a_living_one_is_not(
    start: Start, health: Health, worker_process: WorkerProcesses
) -> None:
    killed = start("-c", "1")
    eventually(lambda: health.is_ready)
    killed.kill()
    worker = start("-c", "1")
    eventually(lambda: health.is_ready)

    second = worker_process("-c", "1", "--health-file", str(health.path), ready=None)

    assert second.wait() == 2
    assert f"kept by process {worker.pid}" in second.output
    assert health.report["pid"] == worker.pid
    assert worker.stop() == 0


def test_a_worker_that_stops_is_live_and_not_ready(start: Start, health: Health, hold: Holding) -> None:
    worker = start("-c", "1")
    result = hold("held")

    worker.signal(signal.SIGTERM)

    eventually(lambda: "it stops" in health.ask())
    assert health.is_live
    hold.release()
    assert result.get(timeout=10) == "held"
    assert worker.wait() == 0


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_systemd_is_told_when_it_is_ready_and_when_it_stops(
    worker_process: WorkerProcesses, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    address = str(tmp_path / "notify")
    lines: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(15)
        worker = worker_process(*pool, env={"NOTIFY_SOCKET": address}, ready=None)
        while "READY=1" not in lines:
            lines += systemd.recv(4096).decode().splitlines()
        worker.signal(signal.SIGTERM)
        while "STOPPING=1" not in lines:
            lines += systemd.recv(4096).decode().splitlines()

    assert lines[0] == "WATCHDOG=1"
    assert lines.count("READY=1") == 1
    assert worker.wait() == 0


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_a_worker_that_waits_for_its_broker_is_live_and_not_ready(
    worker_process: WorkerProcesses, health: Health, pool: tuple[str, ...]
) -> None:
    worker = worker_process(
        *pool,
        env={
            "AMQP_TASKS_BROKER_URL": "amqp://127.0.0.1:1//",
            "AMQP_TASKS_WORKER_HEALTH_FILE": str(health.path),
        },
        ready="no broker yet",
    )

    eventually(lambda: "it has not begun to consume" in health.ask())
    assert health.is_live
    assert health.report["state"] == "starting"
    assert worker.stop() == 0
    assert not health.path.exists()
