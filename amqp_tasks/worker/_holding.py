"""Deliveries that are held unacked for a moment: those whose `eta` or whose turn is near.

How many that are is bounded by the prefetch and the room it leaves for them, and for how long by who asks: the rest waits in the broker.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.worker._job import Job

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._ledger import Ledger

__all__ = ("MOST_ROOM", "Holding", "HoldingEffects", "Release")

Release = Callable[[Sequence[Job]], None]
"""What happens to those whose time has come; called without locks held, on the control thread."""

_LEAST_ROOM = 16
MOST_ROOM = 1024
"""Held deliveries for which the prefetch makes room at most."""
_KEEP_ROOM = 5.0
"""Seconds without held deliveries after which their room is given up: each change is a cancel and a new consume."""


class HoldingEffects(Protocol):
    """What is asked of the rest of the process. Called without locks held, by any thread."""

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """Requeue them."""

    def resize(self) -> None:
        """`room` has changed."""


class Holding:
    """Thread safety: any thread.

    Args:
        ledger: knows which deliveries are lost.
        effects: see `HoldingEffects`.
        call_later: runs something on the control thread after some seconds.
        clock: time.

    Attributes:
        room: deliveries that the prefetch must leave room for beside those that run; written under the lock.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        effects: HoldingEffects,
        call_later: Callable[[float, Callable[[], None]], object],
        clock: Clock,
    ) -> None:
        self._ledger, self._effects, self._call_later, self._clock = ledger, effects, call_later, clock
        self._lock = threading.Lock()
        self._held: list[tuple[float, int, Job, Release]] = []
        self._arrivals = itertools.count()
        self.room = 0
        self._last_held = 0.0
        self._wakes_at = math.inf  # when the next timer is due; later timers set no others
        self._is_closed = False

    @property
    def count(self) -> int:
        """Deliveries held."""
        return len(self._held)

    def hold(self, job: Job, seconds: float, release: Release) -> None:
        """Keep it for so long; those due together are released together, in the order of their times."""
        is_resized, wake = False, None
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                due = self._last_held = self._clock.monotonic() + seconds
                heapq.heappush(self._held, (due, next(self._arrivals), job, release))
                wake = self._next_wake()
                is_resized = self._grow_room()
        if is_closed:
            self._effects.hand_back((job,))
            return
        self._wake_at(wake)
        if is_resized:
            self._effects.resize()

    def count_of(self, release: Release) -> int:
        """Those that are held for this release."""
        with self._lock:
            return sum(each is release for _, _, _, each in self._held)

    def take(self, release: Release) -> Job | None:
        """The one that is held for this release for the longest time, which is not held any more; None: there is none."""
        with self._lock:
            while found := min((entry for entry in self._held if entry[3] is release), default=None):
                self._held.remove(found)
                heapq.heapify(self._held)
                if not self._ledger.is_lost(found[2].delivery):
                    return found[2]
        return None

    def hand_back(self, is_unwanted: Callable[[Job], bool]) -> None:
        """Hand back some of them."""
        with self._lock:
            unwanted = [entry[2] for entry in self._held if is_unwanted(entry[2])]
            self._held = [entry for entry in self._held if not is_unwanted(entry[2])]
            heapq.heapify(self._held)
        if unwanted:
            self._effects.hand_back(unwanted)

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
            self._effects.hand_back([job for _, _, job, _ in held])

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
        if len(self._held) <= self.room or self.room >= MOST_ROOM:
            return False
        self.room = max(_LEAST_ROOM, 2 * self.room)
        return True

    def _let_go(self, woken: float) -> None:
        """On the control thread: pass on what is due."""
        now = self._clock.monotonic()
        due: dict[Release, list[Job]] = {}
        with self._lock:
            while self._held and self._held[0][0] <= now:
                _, _, job, release = heapq.heappop(self._held)
                due.setdefault(release, []).append(job)
            if self._wakes_at == woken:
                self._wakes_at = math.inf
            wake = self._next_wake()
        self._wake_at(wake)
        for release, jobs in due.items():
            kept = [job for job in jobs if not self._ledger.is_lost(job.delivery)]
            if kept:
                release(kept)
