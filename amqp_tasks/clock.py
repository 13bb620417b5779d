"""Time, injected: monotonic for durations, aware UTC at the borders."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol, overload

__all__ = ("MAX_SECONDS", "SYSTEM_CLOCK", "Clock", "SystemClock", "seconds_left")

MAX_SECONDS = 100 * 365 * 86_400
"""A century: the longest wait. The platform's own overflow at some centuries, and infinite is meant by `None`."""


class Clock(Protocol):
    """What the rest of the package asks about time; tests pass one that they move."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean something."""
        ...

    def now(self) -> datetime:
        """The present as an aware UTC datetime."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)


SYSTEM_CLOCK = SystemClock()


@overload
def seconds_left(deadline: float) -> float: ...
@overload
def seconds_left(deadline: float | None) -> float | None: ...
def seconds_left(deadline: float | None) -> float | None:
    """Seconds until a monotonic time, 0 when it is over; None, which is no limit, stays None."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
