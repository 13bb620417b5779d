"""The demo's two workers: processes of `amqp-tasks worker`, or threads when the broker is inside this process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from amqp_tasks.cli.demo.brokers import DemoBroker

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("DemoWorkers", "running_workers")

_APP = "amqp_tasks.cli.demo.tasks"
_STOP_TIMEOUT = 10.0
_TAIL = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorkers:
    """The running workers."""

    description: str
    processes: Sequence[tuple[str, subprocess.Popen[bytes], Path]] = ()

    def failure(self) -> str | None:
        """What a worker that has ended by itself said last; None while all run."""
        for queue_name, process, log in self.processes:
            if process.poll() is not None:
                said = log.read_text(errors="replace")[-_TAIL:].strip()
                return f"the worker of {queue_name} ended with exit code {process.returncode}: {said}"
        return None


@contextmanager
def running_workers(app: App, broker: DemoBroker, concurrency: dict[str, int]) -> Generator[DemoWorkers]:
    """A worker for each queue, with so many slots; they are stopped with the context.

    Args:
        app: the demo's app, for workers in this process.
        broker: where they connect.
        concurrency: slots for each queue name.
    """
    start = _threads if broker.is_embedded else _processes
    with start(app, broker, concurrency) as workers:
        yield workers


@contextmanager
def _processes(app: App, broker: DemoBroker, concurrency: dict[str, int]) -> Generator[DemoWorkers]:
    with tempfile.TemporaryDirectory(prefix="amqp-tasks-demo-") as directory:
        started: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        try:
            for queue_name, slots in concurrency.items():
                log = Path(directory) / f"{len(started)}.log"
                with log.open("wb") as output:
                    started.append((queue_name, _start(queue_name, slots, broker.url, output), log))
            yield DemoWorkers(
                description=f"{len(started)} processes of `amqp-tasks worker`", processes=started
            )
        finally:
            _stop([process for _, process, _ in started])


def _start(queue_name: str, slots: int, url: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "amqp_tasks", "-A", _APP, "worker", "-Q", queue_name, "-c", str(slots)]
    # The URL goes by the environment: a command line is visible to everybody.
    environment = os.environ | {"AMQP_TASKS_BROKER_URL": url}
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_TIMEOUT)
        if process.poll() is None:
            process.kill()
            process.wait(timeout=_STOP_TIMEOUT)


@contextmanager
def _threads(app: App, broker: DemoBroker, concurrency: dict[str, int]) -> Generator[DemoWorkers]:
    workers: list[Any] = [
        app.Worker(queues=(queue_name,), pool="threads", concurrency=slots)
        for queue_name, slots in concurrency.items()
    ]
    threads = [
        threading.Thread(target=worker.start, name=f"demo-worker-{n}") for n, worker in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield DemoWorkers(description=f"{len(workers)} workers in this process, with the pool `threads`")
    finally:
        for worker in workers:
            worker.stop(timeout=_STOP_TIMEOUT)
        for thread in threads:
            thread.join(timeout=_STOP_TIMEOUT)
