"""Deliveries that came before their time: held when it is near, sent into the broker's timer wheel when it is not.

The broker counts whole seconds and the worker the rest, so what came through the wheel is at most a second early. A message
of a stock Celery client comes at once, whatever its `eta`. See `docs/explanation/delay.md`.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.transport._delay import came_through_wheel
from amqp_tasks.worker._job import Job

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._ledger import Ledger

__all__ = ("Early", "EarlyEffects")

HOLD_LIMIT = 1.0
"""Seconds that a delivery is held at most."""
PLAUSIBLE_SKEW = 3600.0
"""Seconds. What has waited in the wheel and is early by less came from a clock ahead of ours, and waits no longer than
`HOLD_LIMIT`; by more, its way was longer than the wheel's."""
_LEAST_ROOM = 16
_MOST_ROOM = 1024
_KEEP_ROOM = 5.0
"""Seconds without held deliveries after which their room is given up: each change is a cancel and a new consume."""


class EarlyEffects(Protocol):
    """What may become of an early delivery. Called without locks held, by any thread."""

    def admit(self, jobs: Sequence[Job]) -> None:
        """Their time has come."""

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """Requeue them."""

    def send_round(self, job: Job, seconds: float) -> None:
        """Publish it once more with so many seconds to wait, then ack this one."""

    def resize(self) -> None:
        """`room` has changed."""


class Early:
    """Thread safety: any thread.

    Args:
        ledger: knows which deliveries are lost.
        effects: see `EarlyEffects`.
        call_later: runs something on the control thread after some seconds.
        clock: time.

    Attributes:
        room: deliveries that the prefetch must leave room for beside those that run; written under the lock.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        effects: EarlyEffects,
        call_later: Callable[[float, Callable[[], None]], object],
        clock: Clock,
    ) -> None:
        self._ledger, self._effects, self._call_later, self._clock = ledger, effects, call_later, clock
        self._lock = threading.Lock()
        self._held: list[tuple[float, int, Job]] = []
        self._arrivals = itertools.count()
        self.room = 0
        self._last_held = 0.0
        self._wakes_at = math.inf  # when the next timer is due; later timers set no others
        self._is_closed = False

    @property
    def count(self) -> int:
        """Deliveries held."""
        return len(self._held)

    def keeps(self, job: Job, eta: datetime) -> bool:
        """Whether a delivery is too early; then it is taken care of here."""
        seconds = (eta - self._clock.now()).total_seconds()
        if seconds <= 0:
            return False
        if seconds > HOLD_LIMIT and self._must_wait_in_broker(job, seconds):
            self._effects.send_round(job, seconds)
        else:
            self._hold(job, min(seconds, HOLD_LIMIT))
        return True

    def tick(self) -> None:
        """Give up room that is not needed any more; to be called a few times a second."""
        if not self.room:
            return
        with self._lock:
            is_over = not self._held and self._clock.monotonic() - self._last_held >= _KEEP_ROOM
            if is_over:
                self.room = 0
        if is_over:
            self._effects.resize()

    def drop(self, is_lost: Callable[[Job], bool]) -> None:
        """Forget those whose connection is lost."""
        with self._lock:
            self._held = [entry for entry in self._held if not is_lost(entry[2])]
            heapq.heapify(self._held)

    def close(self) -> None:
        """Hand all back; those that come later too."""
        with self._lock:
            self._is_closed = True
            held, self._held = self._held, []
        if held:
            self._effects.hand_back([job for _, _, job in held])

    @staticmethod
    def _must_wait_in_broker(job: Job, seconds: float) -> bool:
        envelope = job.envelope
        assert envelope is not None
        return seconds > PLAUSIBLE_SKEW or not came_through_wheel(envelope.headers)

    def _hold(self, job: Job, seconds: float) -> None:
        is_resized, wake = False, None
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                due = self._last_held = self._clock.monotonic() + seconds
                heapq.heappush(self._held, (due, next(self._arrivals), job))
                wake = self._next_wake()
                is_resized = self._grow_room()
        if is_closed:
            self._effects.hand_back((job,))
            return
        self._wake_at(wake)
        if is_resized:
            self._effects.resize()

    def _next_wake(self) -> float | None:
        """When the first is due, if that needs a timer: a timer for each would start another for each in turn."""
        if not self._held or self._held[0][0] >= self._wakes_at:
            return None
        self._wakes_at = self._held[0][0]
        return self._wakes_at

    def _wake_at(self, wake: float | None) -> None:
        if wake is not None:
            self._call_later(wake - self._clock.monotonic(), partial(self._let_go, wake))

    def _grow_room(self) -> bool:
        """Make more room, in doublings; False when there is enough."""
        if len(self._held) <= self.room or self.room >= _MOST_ROOM:
            return False
        self.room = max(_LEAST_ROOM, 2 * self.room)
        return True

    def _let_go(self, woken: float) -> None:
        """On the control thread: pass on what is due."""
        now = self._clock.monotonic()
        due: list[Job] = []
        with self._lock:
            while self._held and self._held[0][0] <= now:
                due.append(heapq.heappop(self._held)[2])
            if self._wakes_at == woken:
                self._wakes_at = math.inf
            wake = self._next_wake()
        self._wake_at(wake)
        due = [job for job in due if not self._ledger.is_lost(job.delivery)]
        if due:
            self._effects.admit(due)
