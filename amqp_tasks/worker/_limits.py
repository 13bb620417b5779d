"""Time limits of running tasks: one timekeeper per process, one watch per run of a task that has a limit.

Life of a watch: 1. made by the slot, with the limits of this run; 2. `open`: the task's function is about to be called, the
clock runs; 3. `close`: it has returned or raised. In between the soft limit may interrupt it, and only then: `close` waits
for an interruption that is under way, so that none ever hits the worker's own code or the next task. One that strikes where
the interpreter lets no exception out (`__del__`, a callback of the garbage collector) comes again a moment later; 4. `finish`: the
slot answers for the run, unless the control thread does already because the hard limit has passed.
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.errors import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._job import Job
    from amqp_tasks.worker._records import Records
    from amqp_tasks.worker._runs import Runs

__all__ = (
    "KILL_AFTER",
    "OVERDUE_GRACE",
    "SOFT_SIGNAL",
    "Overdue",
    "Timekeeper",
    "Watch",
    "soft_signal_kept",
    "swallowed_noticed",
)

logger = logging.getLogger(__name__)

SOFT_SIGNAL = signal.SIGUSR2
"""Interrupts the main thread, blocking system calls included. USR1 prints stacks, ALRM belongs to users."""

OVERDUE_GRACE = 5.0
"""Seconds in which a process answers for a task beyond its hard limit, before it ends whatever became of that."""
KILL_AFTER = 2.0
"""Seconds beyond a hard limit after which the supervisor kills a process that did not get to end itself."""

_LONGEST_WAIT = 1.0
"""Seconds between looks at least, while something is watched: timers that became pointless do not pile up."""
_AGAIN_AFTER, _MAX_AGAIN = 0.1, 20
"""Seconds after which an interruption that was swallowed comes again, and how often."""
_ARRIVAL_PAUSE, _ARRIVAL_PAUSES = 0.001, 5000


class Overdue(Exception):
    """The control thread answers for this run, and ends the process."""


class Watch:
    """The limits of one run. Thread safety: `check` by the control thread, the rest by the slot's.

    Args:
        keeper: looks after it.
        job: what runs.
        slot: where.
        soft: seconds, or None.
        hard: seconds, or None.
    """

    __slots__ = (
        "_again",
        "_before",
        "_hard",
        "_hard_due",
        "_is_arrived",
        "_is_claimed",
        "_is_main",
        "_job",
        "_keeper",
        "_raised",
        "_slot",
        "_soft",
        "_soft_due",
        "_thread",
        "_window",
    )

    def __init__(
        self, keeper: Timekeeper, job: Job, slot: int, *, soft: float | None, hard: float | None
    ) -> None:
        self._keeper, self._job, self._slot = keeper, job, slot
        self._soft, self._hard = soft, hard
        self._soft_due = self._hard_due = math.inf
        # Held: must not be interrupted. Whoever gets it ends the window: `close`, or the one interruption.
        self._window = threading.Lock()
        self._window.acquire()
        self._is_claimed = self._is_arrived = False
        self._again = 0
        self._raised: SoftTimeLimitExceeded | None = None
        self._before: signal._HANDLER = None
        self._thread = threading.get_ident()
        # Here, for in a child that its task forks, any thread is the main one: it would give back a handler that it has not taken.
        self._is_main = self._thread == threading.main_thread().ident

    def open(self) -> None:
        """See `Guard.open`."""
        if self._is_main:
            self._before = signal.signal(SOFT_SIGNAL, self._on_signal)
        now = self._keeper.now
        if self._hard:
            self._hard_due = now + self._hard
            self._keeper.records.limit(self._slot, self._hard_due)
        if self._soft:
            self._soft_due = now + self._soft
        self._keeper.begin(self._slot, self)
        _watched[self._thread] = self
        # Last: an interruption between the keeper's noting a timer and setting it would end all its looks.
        self._window.release()

    def close(self) -> None:
        """See `Guard.close`."""
        try:
            _watched.pop(self._thread, None)
            self._keeper.end(self._slot)
            if not self._window.acquire(blocking=False):
                self._await_arrival()
        finally:
            if self._is_main:
                signal.signal(SOFT_SIGNAL, self._before)

    def finish(self) -> None:
        """Answer for the run.

        Raises:
            Overdue: too late.
        """
        if not self._keeper.runs.take(self._job):
            raise Overdue
        if self._hard:
            self._keeper.records.limit(self._slot, 0.0)

    @property
    def due(self) -> float:
        """Monotonic time of the next limit; infinite when there is none any more."""
        return min(self._soft_due, self._hard_due)

    def check(self, now: float) -> None:
        """Do what a limit that has passed asks for."""
        if now >= self._hard_due:
            due, self._soft_due, self._hard_due = self._hard_due, math.inf, math.inf
            if self._keeper.runs.take(self._job):
                self._keeper.records.limit(self._slot, due + OVERDUE_GRACE)
                self._keeper.on_overdue(self._job)
        elif now >= self._soft_due:
            self._claim_window()

    def _claim_window(self) -> None:
        """Where it is not open yet the limit stays due, and is looked at again at once."""
        if self._window.acquire(blocking=False):
            self._soft_due, self._is_claimed = math.inf, True
            logger.warning(
                "soft time limit of %g s exceeded by task %s", self._soft, self._job.name,
                extra={"action": "soft_time_limit"},
            )  # fmt: skip
            self._interrupt()

    def _interrupt(self) -> None:
        if self._is_main:
            signal.pthread_kill(self._thread, SOFT_SIGNAL)
        else:
            _raise_in(self._thread, _raised_by(self._arrive))

    def _await_arrival(self) -> None:
        """The interruption comes at any moment: let it come here, where it becomes this task's outcome."""
        pause = threading.Event()
        for _ in range(_ARRIVAL_PAUSES):
            if self._is_arrived or (self._is_main and signal.getsignal(SOFT_SIGNAL) != self._on_signal):
                return
            pause.wait(_ARRIVAL_PAUSE)
        # Something has swallowed it (a callback of C code, say).
        self._is_arrived = True
        if not self._is_main:
            _raise_in(self._thread, None)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._is_claimed and not self._is_arrived:
            raise self._arrive()

    def _arrive(self) -> SoftTimeLimitExceeded:
        self._is_arrived = True
        self._raised = SoftTimeLimitExceeded(self._soft)
        return self._raised

    def swallowed(self, error: BaseException | None) -> bool:
        """The interpreter drops an exception in this thread: whether it was the interruption, which is due again then."""
        if error is None or error is not self._raised:
            return False
        if self._again < _MAX_AGAIN:
            self._again += 1
            self._is_claimed = self._is_arrived = False
            self._soft_due = self._keeper.now + _AGAIN_AFTER
            self._keeper.wake_for(self._soft_due)
            self._window.release()
        return True


class Timekeeper:
    """Looks after the watches of one process, with one timer for all of them.

    Thread safety: `begin` and `end` by the slots, the rest on the control thread. Slots and control thread share a
    dictionary, which the interpreter changes and copies in one step each.

    Args:
        clock: monotonic time.
        call_later: runs something on the control thread after some seconds.
        records: tell the supervisor when a process that cannot end itself is to be killed.
        on_overdue: answers for a job beyond its hard limit, in place of its slot, and ends the process.
        runs: who answers for what.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        call_later: Callable[[float, Callable[[], None]], object],
        records: Records,
        on_overdue: Callable[[Job], None],
        runs: Runs,
    ) -> None:
        self._clock, self._call_later = clock, call_later
        self.records, self.on_overdue, self.runs = records, on_overdue, runs
        self._watches: dict[int, Watch] = {}
        # When the one timer that counts is due; written under the lock.
        self._wakes_at = math.inf
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        """Monotonic time."""
        return self._clock.monotonic()

    def begin(self, slot: int, watch: Watch) -> None:
        """Look after `watch` from now on."""
        self._watches[slot] = watch
        self.wake_for(watch.due)

    def end(self, slot: int) -> None:
        """Its task has ended; idempotent."""
        self._watches.pop(slot, None)

    def wake_for(self, due: float) -> None:
        """Look when that is due, at the latest."""
        due = min(due, self.now + _LONGEST_WAIT)
        if due >= self._wakes_at:
            return
        with self._lock:
            if due >= self._wakes_at:
                return
            self._wakes_at = due
        self._call_later(max(0.0, due - self.now), partial(self._look, due))

    def _look(self, planned: float) -> None:
        with self._lock:
            if planned != self._wakes_at:
                # An earlier one has taken its place and set the next: were this one to do so too, each of both would for ever.
                return
            # Before the watches are copied: one that begins later finds no timer and sets its own.
            self._wakes_at = math.inf
        now = self.now
        for watch in tuple(self._watches.values()):
            watch.check(now)
        due = min((watch.due for watch in tuple(self._watches.values())), default=math.inf)
        if due < math.inf:
            self.wake_for(due)


_watched: dict[int, Watch] = {}
"""The open watch of each thread. Written by that thread; for a hook of the interpreter, which is one for the process."""


@contextmanager
def swallowed_noticed() -> Generator[None]:
    """Let a soft limit that strikes where no exception gets out strike again; whatever else is dropped there is told as before."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        watch = _watched.get(threading.get_ident())
        if watch is None or not watch.swallowed(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def soft_signal_kept() -> Generator[None]:
    """Let a stray `SOFT_SIGNAL` do nothing, where it would end the process. Outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(SOFT_SIGNAL, _nothing)
    try:
        yield
    finally:
        signal.signal(SOFT_SIGNAL, before)


def _nothing(number: int, frame: object) -> None:
    """It interrupts nobody."""


def _raised_by(make: Callable[[], SoftTimeLimitExceeded]) -> type[SoftTimeLimitExceeded]:
    """A class whose instance `make` makes: the interpreter raises only classes in other threads, and calls them there."""

    class Interruption(SoftTimeLimitExceeded):
        def __new__(cls, *args: object) -> SoftTimeLimitExceeded:  # type: ignore[misc]  # what is raised is `make`'s
            return make()

    return Interruption


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Let the interpreter raise `kind` in a thread when that next runs Python code; None takes it back."""
    exception = ctypes.py_object(kind) if kind is not None else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
