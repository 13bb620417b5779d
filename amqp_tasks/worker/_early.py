"""Deliveries that came before their time: held when it is near, sent into the broker's timer wheel when it is not.

The broker counts whole seconds and the worker the rest, so what came through the wheel is at most a second early. A message
of a stock Celery client comes at once, whatever its `eta`. See `docs/explanation/delay.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.transport._delay import came_through_wheel
from amqp_tasks.worker._job import Job

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._holding import Holding

__all__ = ("Early", "EarlyEffects")

HOLD_LIMIT = 1.0
"""Seconds that a delivery is held at most."""
PLAUSIBLE_SKEW = 3600.0
"""Seconds. What has waited in the wheel and is early by less came from a clock ahead of ours, and waits no longer than
`HOLD_LIMIT`; by more, its way was longer than the wheel's."""


class EarlyEffects(Protocol):
    """What may become of an early delivery. Called without locks held, by any thread."""

    def admit(self, jobs: Sequence[Job]) -> None:
        """Their time has come."""

    def send_round(self, job: Job, seconds: float) -> None:
        """Publish it once more with so many seconds to wait, then ack this one."""


class Early:
    """Thread safety: any thread.

    Args:
        holding: keeps those whose time is near.
        effects: see `EarlyEffects`.
        clock: time.
    """

    def __init__(self, *, holding: Holding, effects: EarlyEffects, clock: Clock) -> None:
        self._holding, self._effects, self._clock = holding, effects, clock

    def keeps(self, job: Job, eta: datetime) -> bool:
        """Whether a delivery is too early; then it is taken care of here."""
        seconds = (eta - self._clock.now()).total_seconds()
        if seconds <= 0:
            return False
        if seconds > HOLD_LIMIT and self._must_wait_in_broker(job, seconds):
            self._effects.send_round(job, seconds)
        else:
            self._holding.hold(job, min(seconds, HOLD_LIMIT), self._effects.admit)
        return True

    @staticmethod
    def _must_wait_in_broker(job: Job, seconds: float) -> bool:
        envelope = job.envelope
        assert envelope is not None
        return seconds > PLAUSIBLE_SKEW or not came_through_wheel(envelope.headers)
