"""The systems that are compared: how to start their workers, and how to make their clients do one operation."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
OPERATION_LIMIT = 300.0


@dataclass(frozen=True, kw_only=True)
class System:
    """One system in one setting.

    Attributes:
        name: as the table shows it.
        client: module of its client.
        worker: command of a worker with four processes.
        queue_type: `quorum` or `classic`.
        environment: what its client and worker are told.
        warm_up: seconds its workers need before they are surely idle.
    """

    name: str
    client: str
    worker: tuple[str, ...]
    queue_type: str
    environment: dict[str, str] = field(default_factory=dict)


CELERY_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")


def celery(
    queue_type: str,
    *,
    name: str = "Celery prefork",
    module: str = "benchmarks.clients.celery_client",
    processes: int = 4,
    flags: tuple[str, ...] = CELERY_FLAGS,
    redis: str = "",
) -> System:
    """Celery with so many pool processes; results over RPC, or in Redis."""
    worker = (sys.executable, "-m", "celery", "-A", module, "worker", "-c", str(processes), *flags)
    environment = {"BENCH_CELERY_BACKEND": redis} if redis else {}
    return System(
        name=name, client="celery_client", worker=worker, queue_type=queue_type, environment=environment
    )


def dramatiq(
    queue_type: str = "classic",
    *,
    name: str = "Dramatiq",
    module: str = "benchmarks.clients.dramatiq_client",
    processes: int = 4,
    threads: int = 8,
    prefetch: int = 0,
    redis: str = "",
) -> System:
    """Dramatiq with so many processes; its best drain is one thread each and a large prefetch."""
    worker = (sys.executable, "-m", "dramatiq", module, "-p", str(processes), "-t", str(threads))
    environment = {"dramatiq_queue_prefetch": str(prefetch)} | ({"BENCH_REDIS": redis} if redis else {})
    return System(
        name=name, client="dramatiq_client", worker=worker, queue_type=queue_type, environment=environment
    )


def own(
    queue_type: str,
    *,
    name: str = "amqp-tasks",
    module: str = "benchmarks.clients.own_client",
    processes: int = 4,
    flags: tuple[str, ...] = ("-l", "ERROR", "-q"),
    environment: dict[str, str] | None = None,
) -> System:
    """amqp-tasks as it comes."""
    worker = (sys.executable, "-m", "amqp_tasks", "-A", module, "worker", "-c", str(processes), *flags)
    return System(
        name=name, client="own_client", worker=worker, queue_type=queue_type, environment=environment or {}
    )


@dataclass(kw_only=True)
class Bench:
    """One broker and one scratch folder; every run gets a queue of its own."""

    url: str
    scratch: Path
    _serial: int = 0

    def fresh(self, system: System) -> dict[str, str]:
        """The environment of one run: a new queue, a new file of stamps."""
        self._serial += 1
        return {
            **os.environ,
            **system.environment,
            "PYTHONPATH": str(TESTS),
            "BENCH_URL": self.url,
            "BENCH_QUEUE": f"bench.{os.getpid()}.{self._serial}",
            "BENCH_QUEUE_TYPE": system.queue_type,
            "BENCH_STAMPS": str(self.scratch / f"stamps-{self._serial}"),
        }

    def operate(self, module: str, operation: str, count: int, environment: dict[str, str]) -> dict[str, Any]:
        """Let a client do one operation; returns what it measured."""
        command = [sys.executable, "-m", module, operation, str(count)]
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.scratch,
            capture_output=True,
            text=True,
            timeout=OPERATION_LIMIT,
            check=False,
        )
        for line in done.stdout.splitlines():
            if line.startswith("MEASURED "):
                measured: dict[str, Any] = json.loads(line.removeprefix("MEASURED "))
                return measured
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")

    @contextlib.contextmanager
    def worker(self, system: System, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of four processes, in a group of its own, killed at the end."""
        log = self.scratch / "worker.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                system.worker,
                env=environment,
                cwd=self.scratch,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stamps(self, environment: dict[str, str]) -> list[tuple[int, float]]:
        """(number, epoch seconds) of the tasks that left a stamp so far."""
        path = Path(environment["BENCH_STAMPS"])
        if not path.exists():
            return []
        return [(int(n), float(t)) for n, t in (line.split() for line in path.read_text().splitlines())]

    def wait_for_stamp(
        self, environment: dict[str, str], wanted: int, limit: float = 240.0
    ) -> list[tuple[int, float]]:
        """Wait until so many stamps are written."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            found = self.stamps(environment)
            if len(found) >= wanted:
                return found
            time.sleep(0.05)  # the peers' workers report by a file; watching it closer would take their CPU
        raise RuntimeError(f"only {len(self.stamps(environment))} of {wanted} stamps after {limit} s")


def memory_of_group(leader: int) -> float:
    """PSS of a process and all its descendants, in MiB."""
    import psutil

    root = psutil.Process(leader)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
