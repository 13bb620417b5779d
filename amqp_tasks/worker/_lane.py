"""What one process makes of a limit that holds for all nodes: where its deliveries wait, and whether tokens are missing. Pure.

See `docs/explanation/rate-limits.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amqp_tasks.message import TokenPlan
from amqp_tasks.worker._bucket import HOLD_LIMIT
from amqp_tasks.worker._job import Job

__all__ = ("Audit", "Lane", "Place")

_LEAST_ROOM, _MOST_ROOM = 2, 512
_AHEAD = 1.25
"""By how much faster than its share a process has them come back: one too early goes round once more, one too late has lost a turn."""
_CHURN = 20.0
"""Deliveries per second that all processes together may try once more, beyond those that can start: a turn is lost where none tries."""


@dataclass(slots=True)
class Lane:
    """Where deliveries of a task wait for its tokens. All times are monotonic.

    Attributes:
        plan: the tokens.
        sharers: how many processes wait for them, as far as is known.
        far: end of the line of those that were sent into the broker when they came.
        again: end of the line of those that came back from there and had to go once more.
    """

    plan: TokenPlan
    sharers: int = 1
    far: float = 0.0
    again: float = 0.0

    @property
    def room(self) -> int:
        """Deliveries that wait for a token in this process at most: about what it gets in two seconds."""
        return min(_MOST_ROOM, max(_LEAST_ROOM, math.ceil(HOLD_LIMIT * self._share)))

    @property
    def interval(self) -> float:
        """Seconds between the turns of those that wait in the broker."""
        return 1 / max(_AHEAD * self._share, min(self.plan.rate, _CHURN / self.sharers))

    @property
    def _share(self) -> float:
        return self.plan.rate / self.sharers

    def place(self, now: float, *, waiting: int, has_waited: bool) -> float:
        """Seconds from now until the turn of a delivery; 0.0: it may wait for a token here.

        Args:
            now: the present.
            waiting: how many do so already.
            has_waited: it comes from the broker's line, and so before those that still stand there.
        """
        if waiting < self.room and (has_waited or max(self.far, self.again) <= now):
            return 0.0
        at = max(now + waiting / self._share, self.again)
        if has_waited:
            self.again = at + self.interval
        else:
            at = max(at, self.far)
            self.far = at + self.interval
        return at - now


_SURE_OF_SURPLUS, _SURE_OF_LOSS, _SURE_OF_PART = 2, 5, 30


@dataclass(slots=True)
class Audit:
    """What is to be thought of how many tokens are seen, one look after the other. Those in the hands of other processes are not.

    Attributes:
        count: how many there should be.
    """

    count: int
    _more: int = 0
    _fewer: int = 0
    _most: int = 0

    def note(self, seen: int) -> int:
        """Take a look into account: how many there seem to be too many, or, below zero, too few. Both only when several looks say so."""
        if seen >= self.count:
            self._fewer = self._most = 0
            self._more = self._more + 1 if seen > self.count else 0
            return seen - self.count if self._more >= _SURE_OF_SURPLUS else 0
        self._more = 0
        self._fewer += 1
        self._most = max(self._most, seen)
        # While some come and go, the others may be in somebody's hands whenever one looks.
        enough = _SURE_OF_PART if self._most else _SURE_OF_LOSS
        return self._most - self.count if self._fewer >= enough else 0

    def forget(self) -> None:
        """Begin anew."""
        self._more = self._fewer = self._most = 0


@dataclass(slots=True, eq=False)
class Place:
    """What is known of one limit. Written under the lock of `Tokens`, but for `looks_at` and `audit`, which are the keeper's.

    Attributes:
        lane: where its deliveries wait.
        release: marks those that wait for a token among all that are held.
        is_ready: its queues are there, as far as is known.
        is_suspect: there seem to be too many tokens: the next one is looked at by the keeper.
        rests_until: no token is asked for before that time.
        looks_at: when the keeper looks at it next.
        audit: what the keeper thinks.
    """

    lane: Lane
    release: Callable[[Sequence[Job]], None]
    is_ready: bool = False
    is_suspect: bool = False
    rests_until: float = 0.0
    looks_at: float = 0.0
    audit: Audit = field(init=False)

    def __post_init__(self) -> None:
        self.audit = Audit(self.plan.count)

    @property
    def plan(self) -> TokenPlan:
        """Its tokens."""
        return self.lane.plan
