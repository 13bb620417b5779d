"""How many messages a process asks for: a function of its tasks' durations, moved rarely."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence

__all__ = ("WORK_AHEAD", "Prefetch", "PrefetchTotal", "percentile", "wanted_prefetch")

WORK_AHEAD = 0.020
"""Seconds of work that a process holds: enough to cover acks and deliveries on their way, too little to hoard."""
_SAMPLES = 64
_DECIDE_EVERY = 8
_PERCENTILE = 0.95
_FACTOR = 2
"""A prefetch is changed only when it is off by this factor, for a change is a cancel and a new consume."""
_PATIENCE = 8
"""Decisions in a row that must find it too large before it shrinks. A few slow runs among short ones are the machine's
noise; tasks that fill `WORK_AHEAD` by themselves shrink it at once."""


def percentile(samples: Collection[float], share: float) -> float:
    """The smallest sample that at least `share` of them do not exceed; 0 without samples."""
    if not samples:
        return 0.0
    return sorted(samples)[max(0, math.ceil(len(samples) * share) - 1)]


def wanted_prefetch(duration: float, *, slots: int, maximum: int) -> int:
    """Messages that are about `WORK_AHEAD` seconds of work: at least one per slot, at most `maximum`.

    Args:
        duration: seconds that a task takes.
        slots: tasks that run at the same time.
        maximum: `worker_prefetch_max`; never below the slots, as a slot without a message would be of no use.
    """
    maximum = max(slots, maximum)
    if duration <= WORK_AHEAD / maximum:
        return maximum
    return min(maximum, slots * max(1, math.ceil(WORK_AHEAD / duration)))


class Prefetch:
    """The prefetch of one process. Thread safety: none; its owner has the lock.

    Args:
        slots: tasks that run at the same time.
        maximum: `worker_prefetch_max`.
        multiplier: `worker_prefetch_multiplier`: fixes the prefetch to so many per slot; None lets it follow.
    """

    __slots__ = (
        "_durations",
        "_is_cold",
        "_maximum",
        "_multiplier",
        "_patience",
        "_slots",
        "_until_decision",
        "value",
    )

    def __init__(self, *, slots: int, maximum: int, multiplier: int | None = None) -> None:
        self._slots, self._maximum, self._multiplier = slots, maximum, multiplier
        self._durations: deque[float] = deque(maxlen=_SAMPLES)
        self._until_decision = _DECIDE_EVERY
        self._patience = _PATIENCE
        self._is_cold = True
        self.value = slots * (multiplier or 1)

    def observe(self, duration: float) -> bool:
        """Take one task's duration into account; True when `value` changed."""
        self._durations.append(duration)
        self._until_decision -= 1
        if self._until_decision > 0 or self._multiplier is not None:
            return False
        self._until_decision = _DECIDE_EVERY
        recent = percentile(self._durations, _PERCENTILE)
        wanted = wanted_prefetch(recent, slots=self._slots, maximum=self._maximum)
        return self._move(wanted, is_urgent=recent >= WORK_AHEAD)

    def restart(self) -> bool:
        """Forget the durations and fall back to the slots: they did not tell what came; True when `value` changed."""
        self._durations.clear()
        self._until_decision = _DECIDE_EVERY
        before, self.value = self.value, self._slots * (self._multiplier or 1)
        return before != self.value

    def _move(self, wanted: int, *, is_urgent: bool) -> bool:
        is_too_large = wanted * _FACTOR <= self.value
        self._patience = self._patience - 1 if is_too_large else _PATIENCE
        is_due = is_urgent or self._patience <= 0 if is_too_large else self.value * _FACTOR <= wanted
        if is_due:
            self.value, self._patience = wanted, _PATIENCE
            if self._is_cold:
                # The first runs of a process load what later ones find: these are judged by themselves.
                self._is_cold = False
                self._durations.clear()
        return is_due


class PrefetchTotal:
    """What a process asks the broker for: the sum of what its parts want. Thread safety: any thread.

    A part changes its own number first and then calls `update`, which reads all of them and orders the sum under one
    lock: so whichever of two threads is the last to order has seen the numbers of both.

    Args:
        parts: each tells how many deliveries it wants to hold now.
        order: asks for so many; called with the lock held, it must only hand over.
    """

    def __init__(self, parts: Sequence[Callable[[], int]], *, order: Callable[[int], None]) -> None:
        self._parts, self._order = tuple(parts), order
        self._lock = threading.Lock()
        self._ordered = self.value

    @property
    def value(self) -> int:
        """The sum as it is now."""
        return sum(part() for part in self._parts)

    def update(self) -> None:
        """Order the sum if it is another one."""
        with self._lock:
            value = self.value
            if value != self._ordered:
                self._ordered = value
                self._order(value)
