"""What a node knows about a redelivered task: how often it killed its process, where it runs, whether it is done.

Pure bookkeeping of the supervisor; bounded, as ids never end. The oldest are forgotten first.
"""

from __future__ import annotations

import math
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from amqp_tasks.clock import SYSTEM_CLOCK, Clock

__all__ = ("UNKNOWN", "Answer", "CrashTable", "RecentKeys", "Verdict", "Verdicts", "describe_status")

MAX_IDS = 20_000

MAX_AGE = 3600.0
"""Seconds after which a noted key counts no more: ids of callers' own may come again, as those of a nightly run do."""


MAX_CRASH_AGE = 86_400.0
"""Seconds after which crashes count no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of one task id.

    Attributes:
        crashes: how often a process died while running it.
        cause: how the last one died, e.g. `signal 9`.
        is_running: a living process of this node still has it.
        is_finished: its outcome is stored; only the ack was lost.
        is_refused: it is over, and the broker may not have heard that it is to keep it.
        is_timed_out: it passed its hard limit, and nobody could answer for it.
    """

    crashes: int = 0
    cause: str = ""
    is_running: bool = False
    is_finished: bool = False
    is_refused: bool = False
    is_timed_out: bool = False


UNKNOWN = Verdict()

Answer = Callable[[Mapping[str, Verdict]], None]


class Verdicts(Protocol):
    """Whom a worker process asks about redelivered messages."""

    def ask(self, task_ids: Sequence[str], on_answer: Answer) -> None:
        """Call `on_answer` once, from any thread, at once or later, with what is known; ids left out are unknown."""

    def tell_open(self, task_ids: Sequence[str]) -> None:
        """The connection was lost while this process had these tasks: they will be redelivered and must not be run."""

    def tell_finished(self, task_ids: Sequence[str]) -> None:
        """These are finished and their outcomes stored, but their acks may be lost."""

    def tell_refused(self, task_ids: Sequence[str]) -> None:
        """These are over, and the broker may not have heard that it is to keep them: their redeliveries are to be refused, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashes:
    """What is known of one task id.

    Attributes:
        ids: of the crashes: one that is told twice, or comes back from the journal, counts once.
        cause: how the last process died.
        time: monotonic time of the last.
        heard: monotonic time at which that became known here.
    """

    ids: frozenset[str] = frozenset()
    cause: str = ""
    time: float = -math.inf
    heard: float = -math.inf


NO_CRASHES = Crashes()


class CrashTable:
    """Crashes per task id, on this node and on others, forgotten a day after the last."""

    def __init__(self, *, maximum: int = MAX_IDS, clock: Clock = SYSTEM_CLOCK) -> None:
        self._maximum, self._clock = maximum, clock
        self._crashes: OrderedDict[str, Crashes] = OrderedDict()

    def charge(self, task_id: str, cause: str, crash_id: str, *, age: float = 0.0) -> int:
        """Count one crash, which was `age` seconds ago; returns how many there are now."""
        now = self._clock.monotonic()
        known = self.look_up(task_id)
        if crash_id not in known.ids and age < MAX_CRASH_AGE:
            self._crashes.pop(task_id, None)
            ids = known.ids | {crash_id}
            time = max(known.time, now - age)
            self._crashes[task_id] = known = Crashes(ids=ids, cause=cause, time=time, heard=now)
        while len(self._crashes) > self._maximum:
            self._crashes.popitem(last=False)
        return len(known.ids)

    def look_up(self, task_id: str) -> Crashes:
        """What is known."""
        known = self._crashes.get(task_id, NO_CRASHES)
        return known if self._clock.monotonic() - known.time < MAX_CRASH_AGE else NO_CRASHES


class RecentKeys:
    """Keys that were noted last, for `MAX_AGE`."""

    def __init__(self, *, maximum: int = MAX_IDS, clock: Clock = SYSTEM_CLOCK) -> None:
        self._maximum, self._clock = maximum, clock
        self._noted: OrderedDict[str, float] = OrderedDict()

    def add(self, task_ids: Iterable[str], *, age: float = 0.0) -> None:
        """Remember them, as of `age` seconds ago."""
        now = self._clock.monotonic() - age
        for task_id in task_ids:
            self._noted.pop(task_id, None)
            self._noted[task_id] = now
        while len(self._noted) > self._maximum:
            self._noted.popitem(last=False)

    def __contains__(self, task_id: str) -> bool:
        noted = self._noted.get(task_id)
        return noted is not None and self._clock.monotonic() - noted < MAX_AGE


def describe_status(status: int) -> str:
    """A wait status in words: `signal 9 (SIGKILL)` or `exit code 3`."""
    if status < 0:
        try:
            return f"signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"signal {-status}"
    return f"exit code {status}"
