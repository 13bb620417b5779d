"""What is done to workers and brokers in the fault runs: the same for every system, short for CI and long for the figures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.conservation import Outcome
from support.eventually import let_pass
from support.fault_run import FaultRun, fault_run
from support.fault_systems import HEARTBEAT, OWN
from support.private import PrivateNode
from support.proxy import TcpProxy
from support.workers import WorkerProcess

__all__ = ("KILLERS", "LONG", "SCENARIOS", "SHORT", "Scenario", "Site", "Size", "run_scenario")

KILLERS: Mapping[str, tuple[str, Any]] = {
    "boom-signal": ("signal", int(signal.SIGKILL)),
    "boom-exit": ("exit", 1),
    "boom-segfault": ("segfault", None),
    "boom-memory": ("outgrow", 2**29),
    "boom-descriptors": ("close-all", 3),
}
"""Tasks that end their process, by their keys: an action of `worker_app` and its argument."""

STOP_TIMEOUT = 5


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a scenario: faults of a kind, seconds of a pause, tasks between two faults."""

    faults: int
    pause: float
    tasks: int


SHORT = Size(faults=2, pause=3.0, tasks=20)
LONG = Size(faults=6, pause=30.0, tasks=60)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a run takes place: its broker, and the proxy that workers and callers reach it through."""

    node: PrivateNode
    proxy: TcpProxy


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One fault, under load.

    Attributes:
        title: for the table.
        inject: does it.
        options: of the `FaultRun`.
    """

    title: str
    inject: Callable[[FaultRun, Site, Size], None]
    options: Mapping[str, Any] = field(default_factory=dict)


def run_scenario(
    name: str, node: PrivateNode, *, folder: Path, system: str = OWN, size: Size = SHORT
) -> Outcome:
    """Run workers, callers and who waits for results through one scenario; returns what became of every task."""
    scenario = SCENARIOS[name]
    with (
        TcpProxy(node.url) as proxy,
        fault_run(
            proxy.url_for(), check_url=node.url, folder=folder, system=system, **scenario.options
        ) as run,
    ):
        run.start()
        scenario.inject(run, Site(node=node, proxy=proxy), size)
        run.wait_done(size.tasks)
        return run.finish()


def _kill_processes(run: FaultRun, site: Site, size: Size) -> None:
    """Each time the process that began the latest task."""
    for _ in range(size.faults):
        with run.fault("process killed"), suppress(ProcessLookupError):
            os.kill(run.ledger.entries("start")[-1].pid, signal.SIGKILL)
        run.wait_done(size.tasks)


def _kill_workers(run: FaultRun, site: Site, size: Size) -> None:
    """A whole node at a time, as a machine that dies, and a new one for it."""
    for number in range(size.faults):
        with run.fault("worker killed"):
            run.kill(run.workers[number])
        run.add_worker()
        run.wait_done(size.tasks)


def _send_killers(run: FaultRun, site: Site, size: Size) -> None:
    for number in range(size.faults // 2):
        for key, (action, argument) in KILLERS.items():
            run.send(f"{key}-{number}", action, argument)
        run.wait_done(size.tasks)


def _stop_workers(run: FaultRun, site: Site, size: Size) -> None:
    """Warm, cold by a second signal, and as soon as they are ready."""
    for number in range(size.faults):
        worker = run.workers[-1]
        with run.fault("worker stopped"):
            worker.signal(signal.SIGTERM)
            if number % 2:
                worker.signal(signal.SIGTERM)
            run.end(worker)
        run.add_worker()
        run.wait_done(size.tasks)


def _while_one_stops(run: FaultRun, act: Callable[[], None], name: str, **watched: Any) -> None:
    """Do it, and have a worker told to stop in the middle of it; another takes its place."""
    worker: WorkerProcess = run.workers[-1]
    with run.fault(name, **watched):
        worker.signal(signal.SIGTERM)
        act()
    run.end(worker)
    run.add_worker()


def _restart(run: FaultRun, site: Site, size: Size) -> None:
    _while_one_stops(run, site.node.restart, "broker restarted", port=site.node.port)


def _kill(run: FaultRun, site: Site, size: Size) -> None:
    def act() -> None:
        site.node.kill()
        site.node.start()

    # The virtual host is new, and the broker writes its own tables to disk only every other second.
    site.node.ctl("eval", "mnesia:sync_log().")
    _while_one_stops(run, act, "broker killed", port=site.node.port)


def _pause(run: FaultRun, site: Site, size: Size) -> None:
    def act() -> None:
        site.node.pause()
        let_pass(size.pause)
        site.node.resume()

    _while_one_stops(run, act, "broker paused")


def _close(site: Site) -> None:
    site.node.vhost.close_connections(at_least=2)


def _close_connections(run: FaultRun, site: Site, size: Size) -> None:
    for _ in range(size.faults // 2):
        with run.fault("connections closed"):
            _close(site)
        run.wait_done(size.tasks)
    _while_one_stops(run, lambda: _close(site), "connections closed")


def _memory_alarm(run: FaultRun, site: Site, size: Size) -> None:
    with run.fault("memory alarm"):
        site.node.raise_memory_alarm()
        let_pass(size.pause / 2)
        site.node.clear_memory_alarm()


def _disk_alarm(run: FaultRun, site: Site, size: Size) -> None:
    with run.fault("disk alarm"):
        site.node.raise_disk_alarm()
        let_pass(size.pause / 2)
        site.node.clear_disk_alarm()


def _black_hole(run: FaultRun, site: Site, size: Size) -> None:
    """Nothing gets through, on old connections and new ones; then a router that knows of none of them."""
    with run.fault("network black-holed"):
        site.proxy.blackhole()
        let_pass(size.pause / 2)
        site.proxy.cut()
        site.proxy.resume()


def _abandon(run: FaultRun, site: Site, size: Size) -> None:
    """The old connections are dead without a word: each must be noticed by its owner; new ones are served."""
    with run.fault("connections dead"):
        site.proxy.abandon()
        let_pass(3 * HEARTBEAT)


_LOAD: Mapping[str, Any] = {
    "workers": 3,
    "callers": 2,
    "gets": (30.0, 0.5),
    "env": {"AMQP_TASKS_WORKER_STOP_TIMEOUT": str(STOP_TIMEOUT)},
}

SCENARIOS: Mapping[str, Scenario] = {
    "processes": Scenario(title="pool processes killed", inject=_kill_processes),
    "workers": Scenario(title="whole workers killed", inject=_kill_workers),
    "killers": Scenario(
        title="tasks that kill their process", inject=_send_killers, options={"workers": 1, "callers": 1}
    ),
    "restart": Scenario(title="broker restarted", inject=_restart, options=_LOAD),
    "kill": Scenario(title="broker killed", inject=_kill, options=_LOAD),
    "pause": Scenario(title="broker paused", inject=_pause, options=_LOAD),
    "close": Scenario(title="connections closed", inject=_close_connections, options=_LOAD),
    "memory": Scenario(title="memory alarm", inject=_memory_alarm, options=_LOAD),
    "disk": Scenario(title="disk alarm", inject=_disk_alarm, options=_LOAD),
    "black-hole": Scenario(title="network black-holed", inject=_black_hole, options=_LOAD),
    "abandon": Scenario(title="connections dead, unnoticed", inject=_abandon, options=_LOAD),
    "stop": Scenario(title="workers stopped", inject=_stop_workers, options=_LOAD),
}
"""By the name that `--scenario` takes."""
