"""The demo from finding a broker to removing what was made for it."""

from __future__ import annotations

import sysconfig
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.cli.demo.brokers import find_broker
from amqp_tasks.cli.demo.measure import Latency, Measurement
from amqp_tasks.cli.demo.workers import DemoWorkers, running_workers
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import AmqpTasksError, ResultTimeout

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("DemoError", "DemoOptions", "DemoReport", "DemoScreen", "run_demo")

_WARM_UP_TIMEOUT = 30.0
_WARM_UP_STEP = 1.0
_SLOTS = {"hipri": 1, "lopri": 2}


class DemoError(AmqpTasksError):
    """The demo could not be carried through; the message says at what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the user chose.

    Attributes:
        path: the directory to index; None takes the standard library of this Python.
        broker: its URL; None looks for one.
        max_files: at most so many files.
        timeout: seconds for the measured part.
    """

    path: Path | None = None
    broker: str | None = None
    max_files: int = 5000
    timeout: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What was done and measured.

    Attributes:
        broker: product, version and masked URL.
        path: the directory.
        tasks: size of the backlog, a task for each file.
        seconds: from the first message of the backlog to its last result.
        totals: bytes, lines and words of all files.
        longest_line: of all files, in bytes.
        hipri: latency of look-ups sent to `hipri` while the backlog stood.
        lopri: of the same look-ups, sent to `lopri` at the same moments.
    """

    broker: str
    path: str
    tasks: int
    seconds: float
    totals: Mapping[str, int]
    longest_line: int
    hipri: Latency | None
    lopri: Latency | None


class DemoScreen(Protocol):
    """Where the demo tells how it goes."""

    def note(self, text: str) -> None:
        """One line for the user."""
        ...

    def progress(self, done: int, total: int) -> None:
        """So many tasks of the backlog are done."""
        ...


def run_demo(options: DemoOptions, screen: DemoScreen) -> DemoReport:
    """Run it.

    Raises:
        DemoError: no files, a worker that ended, or `options.timeout` passed.
        BrokerConnectionError: the given broker does not work.
    """
    from amqp_tasks.cli.demo.tasks import app

    path = options.path or Path(sysconfig.get_path("stdlib"))
    files = list(_files(path, "*.py" if options.path is None else "*"))[: options.max_files]
    if not files:
        raise DemoError(f"no files in {path}: give another --path")
    prefix = f"demo-{uuid.uuid4().hex[:6]}"
    queues = {name: f"{prefix}.{name}" for name in _SLOTS}
    with find_broker(options.broker, screen.note) as broker:
        screen.note(f"broker: {broker.description}")
        app.conf.update(broker_url=broker.url)
        slots = {queues[name]: count for name, count in _SLOTS.items()}
        with _queues_removed(app, queues), running_workers(app, broker, slots) as workers:
            screen.note(f"workers: {workers.description}, for {' and '.join(queues.values())}")
            _warm_up(queues, workers)
            measurement = Measurement(files, queues, _watch(workers, screen, len(files), options.timeout))
            measurement.run()
            return _report(measurement, broker.description, path)


def _files(path: Path, pattern: str) -> Iterator[str]:
    for file in sorted(path.rglob(pattern)):
        inside = file.relative_to(path).parts
        if file.is_file() and not any(part.startswith(".") or part == "site-packages" for part in inside):
            yield str(file)


@contextmanager
def _queues_removed(app: App, queues: Mapping[str, str]) -> Generator[None]:
    try:
        yield
    finally:
        try:
            for name in app.topology_for(tuple(queues.values())).queue_names:
                if name.startswith(tuple(queues.values())):
                    app.transport.delete_queue(name, timeout=_WARM_UP_TIMEOUT)
        finally:
            app.close()


def _warm_up(queues: Mapping[str, str], workers: DemoWorkers) -> None:
    """One task through each queue, so that nothing measured waits for a worker's start."""
    from amqp_tasks.cli.demo.tasks import find_word

    deadline = SYSTEM_CLOCK.monotonic() + _WARM_UP_TIMEOUT
    for result in [find_word.apply_async((__file__, "import"), queue=name) for name in queues.values()]:
        while not result.ready():
            try:
                result.get(timeout=_WARM_UP_STEP)
            except ResultTimeout as exc:
                _check(workers, deadline, "the workers did not answer", exc)


def _watch(workers: DemoWorkers, screen: DemoScreen, total: int, timeout: float) -> Callable[[int], None]:
    deadline = SYSTEM_CLOCK.monotonic() + timeout

    def keep_going(done: int) -> None:
        screen.progress(done, total)
        _check(workers, deadline, f"{done} of {total} tasks were done")

    return keep_going


def _check(workers: DemoWorkers, deadline: float, what: str, cause: Exception | None = None) -> None:
    failure = workers.failure()
    if failure is None and SYSTEM_CLOCK.monotonic() > deadline:
        failure = f"{what} in time: give a longer --timeout or fewer --max-files"
    if failure is not None:
        raise DemoError(failure) from cause


def _report(measurement: Measurement, broker: str, path: Path) -> DemoReport:
    # A file may vanish or be unreadable between listing and task: the task then failed, and counts as done.
    indexed = [result.get(timeout=0.0) for result in measurement.results if result.successful()]
    return DemoReport(
        broker=broker,
        path=str(path),
        tasks=len(measurement.files),
        seconds=measurement.seconds,
        totals={key: sum(entry[key] for entry in indexed) for key in ("bytes", "lines", "words")},
        longest_line=max((entry["longest_line"] for entry in indexed), default=0),
        hipri=measurement.latency("hipri"),
        lopri=measurement.latency("lopri"),
    )
