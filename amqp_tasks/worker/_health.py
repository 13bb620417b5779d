"""What a node says of itself in the file of `worker_health_file`, and by which rules it is ready and live.

See `docs/explanation/health.md` for the states and the rules. Who reads the file is `amqp-tasks health`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.transport import ConsumedQueues
from amqp_tasks.worker._pidfile import lives

if TYPE_CHECKING:
    from amqp_tasks.worker._records import ProcessRecords

__all__ = (
    "PERIOD",
    "Health",
    "HealthFile",
    "NodeFacts",
    "ProcessReport",
    "Standing",
    "State",
    "keeping_health_file",
    "telling",
)

logger = logging.getLogger(__name__)

PERIOD = 0.5
"""Seconds between two reports of a node without a supervisor."""
MAX_AGE = 10.0
"""Seconds after which a file that a supervisor keeps is too old."""
SILENCE = 10.0
"""Seconds without a sign of life after which a process is not ready."""
REPLACING = 10.0
"""Seconds that a process has to take the place of another."""
STUCK = 120.0
"""Seconds for which a process may not consume what it should while the node has its connection."""
_MODE = 0o600


class State(StrEnum):
    """Of a node, or of one process; only a node is `reconnecting`."""

    STARTING = "starting"
    RUNNING = "running"
    RECONNECTING = "reconnecting"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """One process at one look.

    Attributes:
        pid: 0 until it is forked.
        state: starting until it has once consumed all that it should.
        consumed: names of the queues that it consumes.
        missing: names of those that it should consume and does not.
        absent: names of the missing ones that the broker does not let be consumed.
        short_for: seconds for which it has not consumed all that it should; 0: it does.
        stuck_for: seconds for which it has not consumed all that it should and could.
        silent_for: seconds since its last sign of life; 0 also when it gives none, as at its start and its end.
        running: how many tasks its slots run.
    """

    pid: int
    state: State
    consumed: tuple[str, ...]
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    short_for: float
    stuck_for: float
    silent_for: float
    running: int


@dataclass(slots=True)
class Standing:
    """What a process has told of its queues. Owner thread only.

    Attributes:
        started: monotonic time of its start.
        was_whole: whether it has ever consumed all that it should.
    """

    started: float
    was_whole: bool = False
    queues: ConsumedQueues = field(default_factory=ConsumedQueues)
    _short_since: float = field(init=False)
    _stuck_since: float = field(init=False)

    def __post_init__(self) -> None:
        self._short_since = self._stuck_since = self.started

    def note(self, queues: ConsumedQueues, now: float) -> None:
        """It told."""
        self.queues = queues
        self._short_since = (self._short_since or now) if queues.missing else 0.0
        is_stuck = len(queues.missing) > len(queues.absent)
        self._stuck_since = (self._stuck_since or now) if is_stuck else 0.0
        self.was_whole = self.was_whole or not queues.missing

    def take(self, queues: ConsumedQueues) -> None:
        """It told just now."""
        self.note(queues, SYSTEM_CLOCK.monotonic())

    def report(self, pid: int, records: ProcessRecords, now: float, *, is_stopping: bool) -> ProcessReport:
        """How it stands now."""
        state = State.RUNNING if self.was_whole else State.STARTING
        sign = records.last_sign
        return ProcessReport(
            pid=pid,
            state=State.STOPPING if is_stopping else state,
            consumed=self.queues.consumed,
            missing=self.queues.missing,
            absent=self.queues.absent,
            short_for=_since(self._short_since, now),
            stuck_for=_since(self._stuck_since, now),
            silent_for=_since(sign, now),
            running=len(records.running()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What does not change, and where to ask for what does.

    Attributes:
        node: its name.
        queue_names: what it consumes.
        processes: how many it should have.
        max_age: seconds after which its file is too old.
        hung_after: seconds of silence after which it is to be restarted; None: its supervisor sees to that.
        paused: names of the queues that are paused; any thread.
        is_connected: whether it has its own connection to the broker; any thread.
    """

    node: str
    queue_names: tuple[str, ...]
    processes: int
    max_age: float = MAX_AGE
    hung_after: float | None = None
    paused: Callable[[], Collection[str]]
    is_connected: Callable[[], bool]


class Health:
    """Judges and tells. Owner thread only.

    Args:
        tellers: get each report.
        facts: see `NodeFacts`.
    """

    def __init__(self, tellers: Sequence[Callable[[dict[str, Any]], None]], facts: NodeFacts) -> None:
        self._tellers, self._facts = tellers, facts
        self._few_since = self._connected_since = 0.0

    def tell(self, state: State, processes: Sequence[ProcessReport], now: float) -> None:
        """Tell how the node is; `now` is monotonic."""
        report = self.report(state, processes, now)
        for tell in self._tellers:
            tell(report)

    def report(self, state: State, processes: Sequence[ProcessReport], now: float) -> dict[str, Any]:
        """What is to be told."""
        facts, is_connected = self._facts, self._facts.is_connected()
        working = [process for process in processes if process.state is not State.STOPPING]
        self._few_since = (self._few_since or now) if len(working) < facts.processes else 0.0
        self._connected_since = (self._connected_since or now) if is_connected else 0.0
        is_short = any(process.short_for for process in working)
        is_reconnecting = state is State.RUNNING and is_short and not is_connected
        return {
            "node": facts.node,
            "pid": os.getpid(),
            "time": SYSTEM_CLOCK.now().isoformat(timespec="milliseconds"),
            "monotonic": now,
            "max_age": facts.max_age,
            "state": State.RECONNECTING if is_reconnecting else state,
            "is_connected": is_connected,
            "consumers_ok": bool(working) and not is_short,
            "queues": list(facts.queue_names),
            "paused": sorted(facts.paused()),
            "processes": [asdict(process) for process in processes],
            "not_ready": list(self._not_ready(state, working, now)),
            "not_live": list(self._not_live(state, working, now)),
        }

    def _not_ready(self, state: State, working: Sequence[ProcessReport], now: float) -> Iterator[str]:
        if state is State.STARTING:
            yield "it has not begun to consume: it waits for the broker, or its log says why"
        elif state is State.STOPPING:
            yield "it stops: start another one"
        if state is not State.RUNNING:
            return
        for process in working:
            if process.short_for and (process.state is State.RUNNING or process.short_for >= REPLACING):
                yield _short(process, is_connected=bool(self._connected_since))
            if process.silent_for >= SILENCE:
                yield (
                    f"process {process.pid} has given no sign of life for {process.silent_for:.0f} s: it is replaced if it"
                    " hangs, see worker_hung_timeout"
                )
        if _since(self._few_since, now) >= REPLACING:
            yield f"{len(working)} of {self._facts.processes} processes run: its log says why the others ended"

    def _not_live(self, state: State, working: Sequence[ProcessReport], now: float) -> Iterator[str]:
        hung_after = self._facts.hung_after
        connected_for = _since(self._connected_since, now)
        for process in working if state is not State.STOPPING else ():
            # A process may be the last to hear that the broker is back.
            stuck_for = min(process.stuck_for, connected_for)
            if stuck_for >= STUCK:
                stuck = [name for name in process.missing if name not in process.absent]
                yield (
                    f"process {process.pid} has not consumed {_names(stuck)} for {stuck_for:.0f} s, although the"
                    " broker is there: restart it"
                )
            if hung_after is not None and process.silent_for >= hung_after:
                yield f"process {process.pid} has given no sign of life for {process.silent_for:.0f} s: restart it"


def _since(then: float, now: float) -> float:
    return max(0.0, now - then) if then else 0.0


def _short(process: ProcessReport, *, is_connected: bool) -> str:
    if not is_connected:
        why = "the connection to the broker is lost, and is made again by itself"
    elif process.absent:
        why = f"the broker does not let {_names(process.absent)} be consumed now, its log says why"
    else:
        why = "its log says why"
    return f"process {process.pid} does not consume {_names(process.missing)}: {why}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "its queues"


@dataclass(slots=True)
class HealthFile:
    """Written whole or not at all; see `keeping_health_file`."""

    path: Path
    _has_warned: bool = field(default=False, init=False)

    def claim(self) -> None:
        """Make sure that it can be written, that no other node keeps it, and that it is nothing else.

        Raises:
            ConfigurationError: one of these is not so.
        """
        pid = self._former_owner()
        if pid != os.getpid() and pid > 0 and lives(pid):
            raise ConfigurationError(
                f"health file {str(self.path)!r} is kept by process {pid}: name another one for each worker"
            )
        try:
            self._write({})
        except OSError as exc:
            raise ConfigurationError(f"cannot write health file {str(self.path)!r}: {exc.strerror}") from exc

    def tell(self, report: dict[str, Any]) -> None:
        """Put `report` in the place of the one before; that it cannot be written is logged once."""
        try:
            self._write(report)
        except OSError as exc:
            if not self._has_warned:
                self._has_warned = True
                logger.error(
                    "cannot write health file %r, which gets too old: %s", str(self.path), exc.strerror,
                    extra={"action": "health_file"},
                )  # fmt: skip
        else:
            self._has_warned = False

    def remove(self) -> None:
        """There is no node any more. Idempotent."""
        with suppress(OSError):
            self.path.unlink()

    def _former_owner(self) -> int:
        """Who wrote what lies there, not long ago; 0: nobody. An old one's process id may be another program's by now.

        Raises:
            ConfigurationError: it is no health file.
        """
        if self.path.is_symlink() or not self.path.exists():
            return 0  # a link is replaced, wherever it leads
        try:
            text = self.path.read_bytes() if self.path.is_file() else b"?"
            report = json.loads(text or b"{}")
            is_fresh = (
                bool(report) and 0 <= SYSTEM_CLOCK.monotonic() - report["monotonic"] <= report["max_age"]
            )
            return int(report["pid"]) if is_fresh else 0
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise ConfigurationError(
                f"{str(self.path)!r} is there and is no health file of ours: name another file, or delete it"
            ) from exc

    def _write(self, report: dict[str, Any]) -> None:
        # What lies there is from one of us that was killed meanwhile; somebody else's link is not followed.
        new = self.path.with_name(f".{self.path.name}.new")
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(report).encode())
        new.replace(self.path)


@contextmanager
def keeping_health_file(path: str | None) -> Generator[HealthFile | None]:
    """Have the file while the block runs; None where none is wanted.

    Raises:
        ConfigurationError: see `HealthFile.claim`.
    """
    if path is None:
        yield None
        return
    file = HealthFile(Path(path).absolute())  # a task may change the directory
    file.claim()
    try:
        yield file
    finally:
        file.remove()


@contextmanager
def telling(tell: Callable[[], None] | None) -> Generator[None]:
    """Have a thread call `tell` now and then while the block runs, and at its end: for a node without a supervisor. None: nothing is to be told."""
    if tell is None:
        yield
        return
    is_over = threading.Event()

    def run() -> None:
        tell()
        while not is_over.wait(PERIOD):
            tell()
        tell()

    thread = threading.Thread(target=run, name="amqp-tasks-health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
