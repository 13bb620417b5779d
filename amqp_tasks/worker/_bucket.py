"""Whose turn it is under a rate limit: a pure decision. See `docs/explanation/rate-limits.md` for its rules."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("HOLD_LIMIT", "Bucket")

HOLD_LIMIT = 2.0
"""Seconds that a delivery waits for its turn in the worker at most; who waits longer does so in the broker."""


@dataclass(slots=True)
class Bucket:
    """What a node knows of the runs of one task. All times are monotonic; one that has passed means nothing any more.

    Attributes:
        interval: seconds from one start to the next at least; 0: no limit.
        opens: the next start is not before it. The limit itself; the others only say where to wait.
        near: end of the line of those that are held in the worker.
        far: end of the line of those that were sent into the broker when they came.
        again: end of the line of those that came back from there and had to go once more.
        late: seconds by which the line of those held lags behind the turns that they were given.
    """

    interval: float = 0.0
    opens: float = 0.0
    near: float = 0.0
    far: float = 0.0
    again: float = 0.0
    late: float = 0.0

    @property
    def is_reserved(self) -> bool:
        """Whether turns of those held are reserved."""
        return self.interval <= HOLD_LIMIT

    def place(self, now: float, *, has_waited: bool) -> float:
        """Seconds from now at which a delivery has its turn: up to `HOLD_LIMIT` is held, more waits in the broker.

        Args:
            now: the present.
            has_waited: it comes from the broker's line: its turn is now, and not behind those that still wait there.
        """
        soonest = max(now, self.opens, self.near)
        is_first = has_waited or max(self.far, self.again) <= soonest
        if is_first and soonest - now <= HOLD_LIMIT:
            # Longer intervals are not reserved: whoever is handed back in the meantime would keep the others waiting for nothing.
            if self.is_reserved:
                self.near = soonest + self.interval
            return soonest - now
        at = max(soonest, self.again)
        if has_waited:
            self.again = at + self.interval
        else:
            at = max(at, self.far)
            self.far = at + self.interval
        return at - now

    def start(self, now: float, turn: float) -> float:
        """Start a run whose turn was given as `turn`: 0.0 when it may, else the seconds until one may."""
        if now >= self.opens:
            # Only one that is on time shows that the line is: what was refused starts late.
            self.late = min(self.late, max(0.0, now - turn))
            self.began(now)
            return 0.0
        late = min(self.opens - turn, self.interval)
        if self.is_reserved and late > self.late:
            # All those behind it are as late: each start takes its while, and the next one counts from there.
            self.near += late - self.late
            self.late = late
        return self.opens - now

    def began(self, now: float) -> None:
        """A run that was started has begun only now: the time to the next one counts from here."""
        self.opens = max(self.opens, now + self.interval)
        self.near = max(self.near, self.opens)

    def change(self, interval: float) -> None:
        """Set another limit, which counts from the last start. Who waits in the broker comes when the old one said."""
        self.opens += interval - self.interval
        self.near = self.far = self.again = self.late = 0.0
        self.interval = interval
