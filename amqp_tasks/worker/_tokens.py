"""The tokens of limits that hold for all nodes together, as one process asks for them and uses them.

A token's way: 1. a delivery waits for it (`want`), so its queue is consumed; 2. it comes, and the delivery goes on to a slot
with it; 3. the run has begun: the token is rejected, which the broker takes for its leave to let it wait for an interval. A delivery that
does not begin gives it back (`give_back`), and so does one that finds no slot in a moment. See `docs/explanation/rate-limits.md`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.clock import seconds_left
from amqp_tasks.message import TokenPlan
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._lane import Lane, Place
from amqp_tasks.worker._token_keeper import TokenKeeper

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport
    from amqp_tasks.worker._holding import Holding

__all__ = ("Tokens", "TokensEffects")

logger = logging.getLogger(__name__)

MOST_WAITED = 600.0
"""Seconds that a delivery waits for a token in the process at most: far below any consumer timeout."""
MOST_IN_HAND = 0.25
"""Seconds within which a token must find a slot: until then nobody else can have it."""
_AGAIN_AFTER = 10.0
"""Seconds until tokens are asked for again that were refused."""
_REST = 0.5, 1.5
"""Seconds for which a process whose slots are busy asks for no other."""


class TokensEffects(Protocol):
    """What may become of a delivery. Called without locks held, by any thread."""

    def run_soon(self, jobs: Sequence[Job]) -> None:
        """There is a token for each: they may have a slot."""

    def take_turn_later(self, job: Job, seconds: int) -> None:
        """See `PacingEffects.take_turn_later`."""


@dataclass(slots=True)
class _Token:
    """One in hand."""

    place: Place
    delivery: Delivery
    consumer: Consumer | None
    since: float
    is_starting: bool = False


class Tokens:
    """Thread safety: any thread. Does nothing before the first `want`.

    Args:
        plans: of the tasks that have such a limit.
        transport: of the process.
        holding: keeps those that wait.
        effects: see `TokensEffects`.
        clock: monotonic time.
    """

    def __init__(
        self,
        plans: Iterable[TokenPlan],
        *,
        transport: Transport,
        holding: Holding,
        effects: TokensEffects,
        clock: Clock,
    ) -> None:
        self._transport, self._holding, self._effects, self._clock = transport, holding, effects, clock
        # Each has a release of its own, by which those that wait for its tokens are known.
        self._places = {plan.task_name: Place(Lane(plan), _Release(self._wait_elsewhere)) for plan in plans}
        self._by_queue = {place.plan.queue_name: place for place in self._places.values()}
        self._lock = threading.Lock()
        self._in_hand: dict[Job, _Token] = {}
        self._consumer: Consumer | None = None
        self._consumed: frozenset[str] = frozenset()
        self._is_closed = False
        self._keeper = TokenKeeper(transport, self, clock=clock)

    @property
    def is_any(self) -> bool:
        """Whether any task has such a limit."""
        return bool(self._places)

    @property
    def places(self) -> Iterable[Place]:
        """All limits."""
        return self._places.values()

    def is_limited(self, task_name: str) -> bool:
        """Whether a task has such a limit."""
        return task_name in self._places

    def turn(self, task_name: str, *, has_waited: bool) -> float:
        """Seconds until the turn of one more; 0.0: it is to `want` a token. See `Lane.place`."""
        place = self._places[task_name]
        waiting = self._holding.count_of(place.release)
        with self._lock:
            return place.lane.place(self._clock.monotonic(), waiting=waiting, has_waited=has_waited)

    def want(self, job: Job, task_name: str) -> None:
        """Keep a delivery until there is a token for it."""
        self._holding.hold(job, MOST_WAITED, self._places[task_name].release)
        self.update()
        self._keeper.wake()

    def holds(self, job: Job) -> bool:
        """Whether a delivery has a token."""
        return job in self._in_hand

    def start(self, job: Job) -> bool:
        """Have a delivery begin, if it has a token: from now on this is only given back when it says so."""
        with self._lock:
            token = self._in_hand.get(job)
            if token is not None:
                token.is_starting = True
        return token is not None

    def began(self, job: Job) -> None:
        """Its run has begun: the interval counts from now."""
        self._settle(job, Settlement.DROP)

    def give_back(self, job: Job) -> None:
        """It does not begin, or has ended: if it still has its token, somebody else may have that."""
        self._settle(job, Settlement.REQUEUE)

    def is_waiting(self, place: Place) -> bool:
        """Whether anybody waits for a token."""
        return self._holding.count_of(place.release) > 0

    def in_hand(self, place: Place) -> int:
        """Tokens of this limit that are here."""
        with self._lock:
            return sum(token.place is place for token in self._in_hand.values())

    def note_ready(self, place: Place, *, is_ready: bool) -> None:
        """From the keeper: its queues are there, or not any more."""
        if is_ready:
            self._open()
        with self._lock:
            place.is_ready = is_ready
        self.update()

    def note_look(self, place: Place, *, sharers: int, is_suspect: bool) -> None:
        """From the keeper: what it has seen."""
        with self._lock:
            place.lane.sharers, place.is_suspect = max(1, sharers), is_suspect

    def judged(self, delivery: Delivery, *, is_surplus: bool) -> None:
        """From the keeper: what is to become of a token that it has looked at."""
        self._give_up(delivery, Settlement.ACK if is_surplus else Settlement.REQUEUE)

    def update(self) -> None:
        """Consume the tokens of those that wait, and no others."""
        with self._lock:
            now = self._clock.monotonic()
            wanted = frozenset(
                place.plan.queue_name
                for place in self._places.values()
                if place.is_ready and place.rests_until <= now and self.is_waiting(place)
            )
            if self._consumer is not None and wanted != self._consumed:
                self._consumed = wanted
                self._consumer.pause_queues(self._by_queue.keys() - wanted)

    def tick(self) -> None:
        """Give back what has found no slot; to be called a few times a second."""
        if self._consumer is None:
            return
        now, late = self._clock.monotonic(), list[_Token]()
        with self._lock:
            for job, token in list(self._in_hand.items()):
                if not token.is_starting and now - token.since > MOST_IN_HAND:
                    token.place.rests_until = now + random.uniform(*_REST)  # noqa: S311 - no secret
                    # Under this lock: a slot that gets free now must not start with a token that goes back.
                    late.append(self._in_hand.pop(job))
        self.update()
        for token in late:
            self._return(token, Settlement.REQUEUE)

    def close(self, *, timeout: float) -> None:
        """Ask for nothing more; tokens in hand go back. All within `timeout`. Idempotent."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._is_closed = True
            consumer, self._consumer = self._consumer, None
        self._keeper.close(timeout=timeout / 2)
        if consumer is not None:
            consumer.close(timeout=seconds_left(deadline))

    def _open(self) -> None:
        with self._lock:
            if self._consumer is None and not self._is_closed:
                self._consumed = frozenset()
                self._consumer = self._transport.consume(
                    tuple(self._by_queue),
                    ConsumerOptions(prefetch=1, settle_delay=0.0, paused_queues=tuple(self._by_queue)),
                    on_deliveries=self._on_deliveries,
                    on_event=self._on_event,
                )

    def _settle(self, job: Job, settlement: Settlement) -> None:
        if not self._in_hand:
            return
        with self._lock:
            token = self._in_hand.pop(job, None)
        if token is not None:
            self._return(token, settlement)

    def _return(self, token: _Token, settlement: Settlement) -> None:
        if token.consumer is self._consumer:  # another one knows nothing of it, and the broker has it again
            self._give_up(token.delivery, settlement)

    def _give_up(self, delivery: Delivery, settlement: Settlement) -> None:
        with self._lock:
            consumer = self._consumer
        if consumer is not None:
            consumer.settle(delivery, settlement)

    def _wait_elsewhere(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._effects.take_turn_later(job, 1)

    # On the I/O thread.

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.state is ConsumerState.LOST:
            with self._lock:
                self._forget_tokens()
        elif event.state is ConsumerState.CANCELLED:
            place = self._by_queue.get(event.queue_name or "")
            if place is not None:
                self._forget((place,))
        elif event.state is ConsumerState.FAILED:
            logger.error(
                "no tokens can be had, so tasks with a cluster_rate_limit wait: %s", event.error, extra={"action": "rate_tokens"}
            )  # fmt: skip
            with self._lock:
                self._consumer = None
                self._forget_tokens()
                for place in self._places.values():
                    place.looks_at = self._clock.monotonic() + _AGAIN_AFTER
            self._forget(self._places.values())

    def _forget_tokens(self) -> None:
        # The broker has them again. Those that begin just now begin all the same.
        self._in_hand = {job: token for job, token in self._in_hand.items() if token.is_starting}

    def _forget(self, places: Iterable[Place]) -> None:
        with self._lock:
            for place in places:
                place.is_ready = False
        self._keeper.wake()

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            place = self._by_queue[delivery.queue_name]
            if place.is_suspect:
                with self._lock:
                    place.is_suspect = False
                self._keeper.judge(place, delivery)
                continue
            job = self._holding.take(place.release)
            if job is None:
                # First no longer a consumer: else it would come right back.
                self.update()
                self._give_up(delivery, Settlement.REQUEUE)
                continue
            with self._lock:
                self._in_hand[job] = _Token(place, delivery, self._consumer, self._clock.monotonic())
            self.update()
            self._effects.run_soon((job,))


@dataclass(frozen=True, slots=True, eq=False)
class _Release:
    """A release with an identity."""

    then: Callable[[Sequence[Job]], None]

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.then(jobs)
