"""Workers and callers of one system under faults, and what became of every task.

    with fault_run(node.url, folder=tmp_path, workers=2, callers=2) as run:
        run.start()
        with run.fault("broker killed"):
            node.kill()
            node.start()
        run.wait_done(50)
        outcome = run.finish()

1. `start` starts the workers, waits until they are ready, starts the callers, and returns when tasks are done.
2. The test injects its faults, each in a `fault`: what runs twice must have been touched by one.
3. `finish` stops the callers, lets the workers end what there is, stops them, empties the queues, and gives the `Outcome`.
4. The end of the block holds the law against that.

Callers and workers are processes; all of them and the faults report to one `Ledger`, of which the outcome is made.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.callers.calling import Orders
from support.conservation import Outcome, key_of, messages_in
from support.eventually import wait_until
from support.fault_systems import OWN, QUEUE, SYSTEMS, FaultSystem
from support.ledger import Ledger
from support.nodes import speaks_amqp
from support.raw import RawClient
from support.reckoning import keys_by_event, reckon
from support.workers import READY, WorkerProcess, WorkerProcesses

__all__ = ("FaultRun", "fault_run")

HUNG_AFTER = 45.0
"""Seconds after which a call that did not end hangs: the longest time limit of a call is 30."""

REQUEUE_SECONDS = 10.0
"""Seconds in which the broker has back what ended workers had."""

QUIET = 5.0
"""Seconds without any report after which nothing will come any more."""


class _CallingProcess:
    """A process that calls tasks until its standard input is closed."""

    def __init__(
        self, system: FaultSystem, orders: Orders, *, env: Mapping[str, str], workers: WorkerProcesses
    ) -> None:
        self.name = orders.name
        command = system.caller(orders.to_json())
        self.process: WorkerProcess = workers.run(command, env=env, ready=None, stdin=subprocess.PIPE)

    def send(self, key: str, action: str, argument: Any) -> None:
        """Have it make one call."""
        stdin = self.process.process.stdin
        assert stdin is not None
        stdin.write(json.dumps([key, action, argument]) + "\n")
        stdin.flush()

    def stop(self) -> None:
        """Order it to stop after the call that it is in."""
        stdin = self.process.process.stdin
        assert stdin is not None
        stdin.close()

    def has_ended(self, deadline: float) -> bool:
        """Whether it is gone by then."""
        return wait_until(lambda: self.process.process.poll() is not None, deadline - time.monotonic())


class FaultRun:
    """See the module. Made by `fault_run`; the test's thread owns it."""

    def __init__(
        self,
        url: str,
        *,
        folder: Path,
        system: str = OWN,
        workers: int = 2,
        processes: int = 2,
        callers: int = 2,
        gets: Sequence[float] = (),
        interval: float = 0.01,
        seconds: float = 0.01,
        env: Mapping[str, str] | None = None,
        caller_url: str | None = None,
        check_url: str | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            url: the broker, as the workers reach it.
            folder: for the ledger.
            system: see `fault_systems`.
            workers: nodes.
            processes: of each.
            callers: processes that only call.
            gets: one more calling process for each, which waits so many seconds for each of its results.
            interval: seconds between two calls of a process.
            seconds: that each task takes.
            env: more for the environment of workers and callers.
            caller_url: the broker as the callers reach it; default as the workers.
            check_url: the broker as the law reaches it at the end; default as the workers.
        """
        self.system = SYSTEMS[system]
        self.ledger = Ledger(folder / "ledger")
        self.workers: list[WorkerProcess] = []
        self._check_url = check_url or url
        self._counts = (workers, processes, callers)
        self._interval, self._seconds = interval, seconds
        self._gets = gets if self.system.has_results else ()
        told = {"AMQP_TASKS_TEST_LEDGER": str(self.ledger.path), **(env or {})}
        self._worker_env = {**self.system.environment(url), **told}
        self._caller_env = {**self.system.environment(caller_url or url), **told}
        self.restarts = 0
        self.outcome: Outcome | None = None
        self._ended: set[int] = set()
        self._processes = WorkerProcesses(folder, {})
        self._callers: list[_CallingProcess] = []

    def start(self, *, done: int = 20, within: float = 30.0) -> None:
        """Start everything; returns when `done` tasks were run."""
        workers, _, callers = self._counts
        for _ in range(workers):
            self.add_worker()
        for number in range(callers):
            self._add_caller(f"caller-{number}", gets=None)
        for number, seconds in enumerate(self._gets):
            self._add_caller(f"waiter-{number}", gets=seconds)
        try:
            self.ledger.wait_for("done", count=done, within=within)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self._outputs()}") from exc

    def add_worker(self, ready: str = READY, *, env: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start one more node; returns when it has written a line like `ready`. A peer's need not get so far."""
        command = self.system.worker(self._counts[1])
        started = self._processes.run(command, env={**self._worker_env, **(env or {})}, ready=None)
        self.workers.append(started)
        try:
            started.wait_output(ready, within=40.0)
        except AssertionError:
            if self.system.name == OWN:
                raise
        return started

    def worker_of(self, pid: int) -> WorkerProcess:
        """The node that a process belongs to.

        Raises:
            LookupError: none.
        """
        for each in self.workers:
            if pid in each.children():
                return each
        raise LookupError(f"process {pid} is no worker's")

    def _add_caller(self, name: str, *, gets: float | None) -> None:
        orders = Orders(
            name=name,
            ledger=str(self.ledger.path),
            interval=self._interval,
            action="sleep",
            argument=self._seconds,
            gets=gets,
        )
        self._callers.append(
            _CallingProcess(self.system, orders, env=self._caller_env, workers=self._processes)
        )

    def lasting_processes(self) -> list[int]:
        """The ids of the first worker's processes and of the callers."""
        return [
            self.workers[0].pid,
            *self.workers[0].children(),
            *(each.process.pid for each in self._callers),
        ]

    def send(self, key: str, action: str = "ok", argument: Any = None) -> None:
        """Have the first caller make one more call; see `worker_app` for the actions."""
        self._callers[0].send(key, action, argument)

    def wait_done(self, more: int, *, within: float = 30.0) -> None:
        """Wait until so many more tasks were run to their end.

        Workers of a peer that ended by themselves are started again, as whatever watches services would do, and a
        peer that stands still is left so: the outcome tells. Ours must do neither.
        """
        wanted = self.ledger.total("done") + more

        def is_done() -> bool:
            if self.system.name != OWN:
                self._revive()
            return self.ledger.total("done") >= wanted

        came = wait_until(is_done, within)
        assert came or self.system.name != OWN, f"stands still; {more} more wanted\n{self._outputs()}"

    def _revive(self) -> None:
        for each in list(self.workers):
            if each.process.poll() is not None and each.pid not in self._ended:
                self._ended.add(each.pid)
                self.restarts += 1
                self.add_worker()

    def end(self, worker: WorkerProcess, within: float = 30.0) -> int | None:
        """Wait for the end of a worker that was told to; returns its exit status, None when it had to be killed."""
        self._ended.add(worker.pid)
        try:
            return worker.wait(within)
        except AssertionError:
            worker.kill_all()
            return None

    def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL to a worker and all its processes."""
        self._ended.add(worker.pid)
        worker.kill_all()

    def _outputs(self) -> str:
        return "\n".join(each.output for each in (*self.workers, *(one.process for one in self._callers)))

    @contextmanager
    def fault(self, name: str, *, port: int | None = None) -> Iterator[None]:
        """Note that what is done in the block is a fault; its end is the moment from which things should go well again.

        Args:
            name: for the report.
            port: a broker's; then the fault ends as soon as it takes connections again after it took none, which
                is well before all of it is up.
        """
        self.ledger.record("fault", name)
        watch = threading.Thread(target=self._watch, args=(name, port), name="watch") if port else None
        if watch:
            watch.start()
        try:
            yield
        finally:
            if watch:
                watch.join(90)
            else:
                self.ledger.record("fault-over", name)

    def _watch(self, name: str, port: int) -> None:
        assert wait_until(lambda: not speaks_amqp(port), 60)
        assert wait_until(lambda: speaks_amqp(port), 60)
        self.ledger.record("fault-over", name)

    def stop_callers(self) -> None:
        """Have the callers end; who does not in time is noted as hung and killed."""
        for each in self._callers:
            each.stop()
        deadline = time.monotonic() + HUNG_AFTER
        for each in self._callers:
            if not each.has_ended(deadline):
                each.process.kill_all()
        self._callers.clear()

    def finish(
        self,
        *,
        revoked: Collection[str] = (),
        expired: Collection[str] = (),
        within: float = 60.0,
        stop_within: float = 45.0,
    ) -> Outcome:
        """Stop the callers, let the workers end what there is, stop them and say what became of every task.

        Args:
            revoked: keys that the test revoked.
            expired: keys that the test let expire.
            within: seconds for the workers to end what there is.
            stop_within: seconds for each worker to stop.
        """
        self.stop_callers()
        self._wait_settled(within)
        statuses = [self._stop(each, stop_within) for each in self.workers]
        dead, queued = self._drain(gone={*revoked, *expired})
        self.outcome = reckon(
            self.ledger.entries(),
            dead=dead,
            queued=queued,
            revoked=revoked,
            expired=expired,
            statuses=statuses,
            restarts=self.restarts,
        )
        return self.outcome

    def _drain(self, gone: set[str]) -> tuple[dict[str, str], set[str]]:
        """Empty the queues: the dead letters' reasons by their keys, and the keys of what is left.

        The broker requeues what a worker had a moment after that has ended, so nothing counts as missing before a while.
        """
        dead: dict[str, str] = {}
        queued: set[str] = set()

        def is_complete() -> bool:
            dead.update(self._take(raw, self.system.dead_queue))
            queued.update(self._take(raw, QUEUE), self._take(raw, self.system.held_queue))
            events = keys_by_event(self.ledger.entries())
            return events["accepted"] - gone <= events["done"] | dead.keys() | queued

        with RawClient(self._check_url) as raw:
            wait_until(is_complete, REQUEUE_SECONDS)
        return dead, queued

    def _take(self, raw: RawClient, queue: str | None) -> dict[str, str]:
        """What is in a queue: the reasons by their keys."""
        if queue is None:
            return {}
        return {key_of(each): self.system.reason_of(each) for each in messages_in(raw, queue)}

    def _wait_settled(self, within: float) -> None:
        """Until all that was accepted ran and the queue is empty, or nothing more comes."""
        reported, since = 0, time.monotonic()

        def settled() -> bool:
            nonlocal reported, since
            entries = self.ledger.entries()
            if len(entries) != reported:
                reported, since = len(entries), time.monotonic()
            events = keys_by_event(entries)
            is_all = events["accepted"] <= events["done"] and raw.depth(QUEUE) <= 0
            return is_all or time.monotonic() - since > QUIET

        with RawClient(self._check_url) as raw:
            wait_until(settled, within)

    def _stop(self, worker: WorkerProcess, within: float) -> int | None:
        if worker.process.poll() is None:
            worker.signal(signal.SIGTERM)
        return self.end(worker, within)

    def close(self) -> None:
        """Kill what is left; what all processes wrote is kept beside the ledger.

        Raises:
            AssertionError: a process outlived a worker that had ended.
        """
        try:
            self._processes.close()
        finally:
            self._processes.keep_outputs(self.ledger.path.parent)


@contextmanager
def fault_run(url: str, *, folder: Path, **options: Any) -> Iterator[FaultRun]:
    """A `FaultRun`, whose processes are gone at the end; the options are those of its constructor.

    Raises:
        AssertionError: the run was not finished, or our system has broken the law; what a peer does is only told.
    """
    run = FaultRun(url, folder=folder, **options)
    try:
        yield run
    finally:
        run.close()
    assert run.outcome is not None, "finish() was not called: nothing is known of the law"
    if run.system.name == OWN:
        run.outcome.check()
