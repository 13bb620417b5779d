"""Time limits of running tasks: one timekeeper per process, one watch per run of a task that has a limit.

Life of a watch: 1. made by the slot, with the limits of this run; 2. `open`: the task's function is about to be called, the
clock runs; 3. `close`: it has returned or raised. In between the soft limit may interrupt it, and only then: `close` waits
for an interruption that is under way, so that none ever hits the worker's own code or the next task.
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amqp_tasks.errors import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._job import Job

__all__ = ("SOFT_SIGNAL", "Timekeeper", "Watch", "soft_signal_kept")

logger = logging.getLogger(__name__)

SOFT_SIGNAL = signal.SIGUSR2
"""Interrupts the main thread, blocking system calls included. USR1 prints stacks, ALRM belongs to users."""

_LONGEST_WAIT = 1.0
"""Seconds between looks at least, while something is watched: timers that became pointless do not pile up."""
_ARRIVAL_PAUSE, _ARRIVAL_PAUSES = 0.001, 5000


class Watch:
    """The limits of one run. Thread safety: `open` and `close` by the slot's thread, `check` by the control thread.

    Attributes:
        due: monotonic time of the next limit; infinite when there is none.
    """

    __slots__ = (
        "_before",
        "_is_arrived",
        "_is_claimed",
        "_job",
        "_keeper",
        "_slot",
        "_soft",
        "_thread",
        "_window",
        "due",
    )

    def __init__(self, keeper: Timekeeper, job: Job, slot: int, *, soft: float) -> None:
        self._keeper, self._job, self._slot, self._soft = keeper, job, slot, soft
        self.due = math.inf
        # Held: must not be interrupted. Whoever gets it ends the window: `close`, or the one interruption.
        self._window = threading.Lock()
        self._window.acquire()
        self._is_claimed = self._is_arrived = False
        self._before: signal._HANDLER = None
        self._thread = threading.get_ident()

    def open(self) -> None:
        """See `Guard.open`."""
        if self._is_main:
            self._before = signal.signal(SOFT_SIGNAL, self._on_signal)
        self._window.release()
        self.due = self._keeper.now + self._soft
        self._keeper.begin(self._slot, self)

    def close(self) -> None:
        """See `Guard.close`."""
        try:
            self._keeper.end(self._slot)
            if not self._window.acquire(blocking=False):
                self._await_arrival()
        finally:
            if self._is_main:
                signal.signal(SOFT_SIGNAL, self._before)

    def check(self, now: float) -> None:
        """Interrupt the task if its limit has passed."""
        if now < self.due:
            return
        self.due = math.inf
        if self._window.acquire(blocking=False):
            self._is_claimed = True
            logger.warning(
                "soft time limit of %g s exceeded by task %s", self._soft, self._job.key,
                extra={"action": "soft_time_limit"},
            )  # fmt: skip
            self._interrupt()

    @property
    def _is_main(self) -> bool:
        return self._thread == threading.main_thread().ident

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
        return SoftTimeLimitExceeded(self._soft)


class Timekeeper:
    """Looks after the watches of one process, with one timer for all of them.

    Thread safety: `begin` and `end` by the slots, the rest on the control thread. Slots and control thread share a
    dictionary, which the interpreter changes and copies in one step each.
    """

    def __init__(self, *, clock: Clock, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._clock, self._call_later = clock, call_later
        self._watches: dict[int, Watch] = {}
        self._wakes_at = math.inf

    @property
    def now(self) -> float:
        """Monotonic time."""
        return self._clock.monotonic()

    def begin(self, slot: int, watch: Watch) -> None:
        """Look after `watch` from now on."""
        self._watches[slot] = watch
        self._wake_for(watch.due)

    def end(self, slot: int) -> None:
        """Its task has ended; idempotent."""
        self._watches.pop(slot, None)

    def _wake_for(self, due: float) -> None:
        due = min(due, self.now + _LONGEST_WAIT)
        if due < self._wakes_at:
            self._wakes_at = due
            self._call_later(max(0.0, due - self.now), self._look)

    def _look(self) -> None:
        # Before the watches are copied: one that begins later finds no timer and sets its own.
        self._wakes_at = math.inf
        now = self.now
        for watch in tuple(self._watches.values()):
            watch.check(now)
        due = min((watch.due for watch in tuple(self._watches.values())), default=math.inf)
        if due < math.inf:
            self._wake_for(due)


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
