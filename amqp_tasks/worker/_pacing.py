"""Deliveries of tasks with a rate limit: which go on, which are held until their turn, which wait in the broker.

A process asks twice: when a delivery comes, for its place in line, and when a slot is free for it, whether it may start. Only
the second answer is the limit; the first keeps what has to wait away from slots and prefetch. See `docs/explanation/rate-limits.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.message import RATE_HEADER
from amqp_tasks.worker._bucket import HOLD_LIMIT
from amqp_tasks.worker._job import Job

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._holding import Holding
    from amqp_tasks.worker._rates import RateLimits
    from amqp_tasks.worker._tokens import Tokens

__all__ = ("MOST_HELD", "Pacing", "PacingEffects")

MOST_HELD = 512
"""Deliveries that a process holds at most; the next ones wait in the broker, however near their turn is."""
_NO_TOKEN = 0.001
"""What `start` says to one that has no token: not yet, and nobody can say when."""
LEAD = 0.5
"""Seconds by which one that was sent into the broker should be back before its turn: a turn that nobody takes is lost."""


class PacingEffects(Protocol):
    """What may become of a delivery that has to wait. Called without locks held, by any thread."""

    def run_soon(self, jobs: Sequence[Job]) -> None:
        """It is their turn: they may have a slot."""

    def take_turn_later(self, job: Job, seconds: int) -> None:
        """Publish it once more with so many seconds to wait, marked as one that has waited, then ack this one."""


class Pacing:
    """Thread safety: any thread.

    Args:
        limits: of the node.
        tokens: of limits that hold for all nodes.
        holding: keeps those whose turn is near.
        effects: see `PacingEffects`.
        clock: monotonic time.
    """

    def __init__(
        self, *, limits: RateLimits, tokens: Tokens, holding: Holding, effects: PacingEffects, clock: Clock
    ) -> None:
        self._limits, self._tokens, self._holding = limits, tokens, holding
        self._effects, self._clock = effects, clock

    @property
    def is_on(self) -> bool:
        """Whether any task is limited; all else can be left out when not."""
        return self._tokens.is_any or self._limits.is_any

    @staticmethod
    def has_waited(job: Job) -> bool:
        """Whether it comes from the broker's line: its mark is of this run, and not of one before a retry."""
        envelope = job.envelope
        assert envelope is not None
        return envelope.headers.get(RATE_HEADER) == envelope.runs

    def sort(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Those that may have a slot now; the others are taken care of here."""
        return [job for job in jobs if not self._keeps(job)] if self.is_on else jobs

    def start(self, job: Job) -> float:
        """0.0 when a job may start, which counts from now on; else the seconds for which to `put_off` it."""
        name = _name(job)
        if self._tokens.is_limited(name) and not self._tokens.start(job):
            return _NO_TOKEN
        return self._limits.start(name, job.turn)

    def began(self, job: Job) -> None:
        """A job that may start has begun in its slot."""
        self._tokens.began(job)
        self._limits.began(_name(job))

    def ended(self, job: Job) -> None:
        """A job is over, or is handed back: what it has not used, others may."""
        self._tokens.give_back(job)

    def put_off(self, job: Job, seconds: float) -> None:
        """See to a job that may not start yet."""
        if self._tokens.is_limited(_name(job)) and not self._tokens.holds(job):
            self._seek((job,))
            return
        self._tokens.give_back(job)
        if seconds <= HOLD_LIMIT:
            self._wait(job, seconds)
        elif not self._keeps(job):
            self._effects.run_soon((job,))

    def _keeps(self, job: Job) -> bool:
        """Whether it must wait; then it is taken care of."""
        name, seconds = _name(job), 0.0
        is_limited, needs_token = self._limits.is_limited(name), self._tokens.is_limited(name)
        if not is_limited and not needs_token:
            job.turn = 0.0
            return False
        has_waited = self.has_waited(job)
        if is_limited:
            seconds = self._limits.place(name, has_waited=has_waited)
        if needs_token:
            seconds = max(seconds, self._tokens.turn(name, has_waited=has_waited))
        job.turn = self._clock.monotonic() + seconds
        if seconds > 0:
            self._wait(job, seconds)
        elif needs_token:
            self._tokens.want(job, name)
        return seconds > 0 or needs_token

    def _go_on(self, jobs: Sequence[Job]) -> None:
        """The turn of these has come."""
        self._seek([job for job in jobs if self._tokens.is_limited(_name(job))])
        free = [job for job in jobs if not self._tokens.is_limited(_name(job))]
        if free:
            self._effects.run_soon(free)

    def _seek(self, jobs: Sequence[Job]) -> None:
        """Let them wait for a token, here if there is room."""
        for job in jobs:
            name = _name(job)
            seconds = self._tokens.turn(name, has_waited=True)
            if seconds > 0:
                self._wait(job, seconds)
            else:
                self._tokens.want(job, name)

    def _wait(self, job: Job, seconds: float) -> None:
        if seconds <= HOLD_LIMIT and self._holding.count < MOST_HELD:
            self._holding.hold(job, seconds, self._go_on)
        else:
            self._effects.take_turn_later(job, max(1, int(seconds - LEAD)))


def _name(job: Job) -> str:
    assert job.task is not None
    name: str = job.task.name
    return name
