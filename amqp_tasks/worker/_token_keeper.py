"""Makes the queues and tokens of limits that hold for all nodes, and looks whether there are as many as there should be.

Whoever finds the queues missing makes them with their tokens; whoever finds tokens missing for some time makes others, which wait for
an interval first; whoever finds too many takes one away. Each under a lock: a queue that only one connection can have.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Generator, Iterable
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.errors import AmqpTasksError, BrokerOperationError
from amqp_tasks.message import TokenPlan, printable
from amqp_tasks.transport import TopologyMode
from amqp_tasks.worker._aside import Aside

if TYPE_CHECKING:
    from amqp_routing import Topology
    from amqp_tasks.clock import Clock
    from amqp_tasks.transport import Delivery, QueueStatus, Transport
    from amqp_tasks.worker._lane import Place

__all__ = ("KeeperOwner", "TokenKeeper")

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0
_STEP = 0.5
_LEAST_PAUSE, _MOST_PAUSE = 2.0, 30.0
"""Seconds between looks while anybody waits: an interval of the limit within these."""
_FIRST_LOOK, _AGAIN_AFTER = 0.3, 10.0
_LOCK_TRIES, _LOCK_PAUSE = 50, 0.1
_RESOURCE_LOCKED = 405


class KeeperOwner(Protocol):
    """Whose tokens it keeps. Called on the keeper's thread."""

    @property
    def places(self) -> Iterable[Place]:
        """All limits."""
        ...

    def is_waiting(self, place: Place) -> bool:
        """Whether anybody waits for a token."""
        ...

    def in_hand(self, place: Place) -> int:
        """Tokens of this limit that are in this process."""
        ...

    def note_ready(self, place: Place, *, is_ready: bool) -> None:
        """Its queues are there, or not any more."""

    def note_look(self, place: Place, *, sharers: int, is_suspect: bool) -> None:
        """How many consumers there are, and whether there seem to be too many tokens."""

    def judged(self, delivery: Delivery, *, is_surplus: bool) -> None:
        """What is to become of a token that was to be looked at."""


class TokenKeeper:
    """One thread of a worker process, started by the first delivery that waits for a token.

    Args:
        transport: of the process.
        owner: see `KeeperOwner`.
        clock: monotonic time.

    Thread safety: any thread.
    """

    def __init__(self, transport: Transport, owner: KeeperOwner, *, clock: Clock) -> None:
        self._transport, self._owner, self._clock = transport, owner, clock
        self._aside: Aside[Callable[[], None]] = Aside("amqp-tasks-rate-tokens", self._work)
        self._closing = self._aside.closing
        self._is_asleep = False
        self._troubled: set[str] = set()  # names of tasks whose trouble is logged

    def wake(self) -> None:
        """Somebody waits, or something is missing."""
        if not self._aside.has_begun or self._is_asleep:
            self._aside.put(None)

    def judge(self, place: Place, delivery: Delivery) -> None:
        """Take a token away if there are too many."""
        self._aside.put(partial(self._judge, place, delivery))

    def close(self, *, timeout: float) -> None:
        """Begin nothing more."""
        self._aside.close(timeout=timeout)

    def _work(self) -> None:
        while not self._closing.is_set():
            # Whoever begins to wait when this has looked finds it asleep, and wakes it.
            self._is_asleep = True
            seconds = None
            if any(map(self._owner.is_waiting, self._owner.places)):
                self._is_asleep, seconds = False, _STEP
            try:
                item = self._aside.todo.get(timeout=seconds)
            except Empty:
                item = None
            self._is_asleep = False
            if item is not None:
                item()
            self._go_round()

    def _go_round(self) -> None:
        for place in self._owner.places:
            is_due = self._clock.monotonic() >= place.looks_at
            if is_due and not self._closing.is_set() and self._owner.is_waiting(place):
                try:
                    (self._look if place.is_ready else self._set_up)(place)
                except Exception as exc:  # noqa: BLE001 - without this thread no task with such a limit would run
                    place.looks_at = self._clock.monotonic() + _AGAIN_AFTER
                    self._tell(place, exc)
                else:
                    self._troubled.discard(place.plan.task_name)

    def _tell(self, place: Place, error: Exception) -> None:
        """Once: it is a state, and not news."""
        name = place.plan.task_name
        if self._closing.is_set() or name in self._troubled:
            return
        self._troubled.add(name)
        logger.error(
            "task %s waits: the tokens of its cluster_rate_limit cannot be looked at (queue %s), trying again each %g s: %s",
            printable(name), printable(place.plan.queue_name), _AGAIN_AFTER, printable(f"{error}", 1024),
            extra={"action": "rate_tokens", "task_name": name},
        )  # fmt: skip

    def _set_up(self, place: Place) -> None:
        plan = place.plan
        if self._status(plan.queue_name) is None or self._status(plan.waiting_name) is None:
            with self._locked(plan):
                is_new = self._status(plan.queue_name) is None
                self._declare(plan.topology)
                if is_new:
                    self._make(plan, plan.count, is_used=False)
        place.audit.forget()
        place.looks_at = self._clock.monotonic() + _FIRST_LOOK
        self._owner.note_ready(place, is_ready=True)

    def _look(self, place: Place) -> None:
        """Count tokens and those who wait for them."""
        seen = self._count(place.plan, self._owner.in_hand(place))
        if seen is None:
            self._owner.note_ready(place, is_ready=False)
            return
        tokens, consumers = seen
        balance = place.audit.note(tokens)
        self._owner.note_look(place, sharers=consumers, is_suspect=balance > 0)
        if balance < 0:
            self._replace_lost(place, -balance)
        pause = min(_MOST_PAUSE, max(_LEAST_PAUSE, place.plan.interval_ms / 1000))
        if tokens > place.plan.count and balance <= 0:
            pause = _FIRST_LOOK  # while there are too many, too much is started; once that is sure, the next token tells more
        place.looks_at = self._clock.monotonic() + pause * random.uniform(1.0, 1.5)  # noqa: S311 - no secret

    def _replace_lost(self, place: Place, missing: int) -> None:
        plan = place.plan
        with self._locked(plan):
            # Another may have done so meanwhile.
            seen = self._count(plan, self._owner.in_hand(place))
            missing = min(missing, plan.count - seen[0]) if seen is not None else 0
            self._make(plan, missing, is_used=True)
        place.audit.forget()
        if missing > 0:
            logger.warning(
                "%d of %d tokens of the cluster_rate_limit of task %s were lost and are made anew",
                missing, plan.count, printable(plan.task_name), extra={"action": "rate_tokens"},
            )  # fmt: skip

    def _judge(self, place: Place, delivery: Delivery) -> None:
        plan, is_surplus, is_judged = place.plan, False, False
        try:
            with self._locked(plan):
                seen = self._count(plan, 1)
                is_surplus = seen is not None and seen[0] > plan.count
                is_judged = True
                self._owner.judged(delivery, is_surplus=is_surplus)
        except Exception as exc:  # noqa: BLE001 - as in `_go_round`
            if not is_judged:  # else only the lock could not be given back
                self._owner.judged(delivery, is_surplus=False)
            self._tell(place, exc)
        place.audit.forget()
        place.looks_at = self._clock.monotonic() + _FIRST_LOOK
        if is_surplus:
            logger.warning(
                "a token of the cluster_rate_limit of task %s was one too many and is taken away",
                printable(plan.task_name), extra={"action": "rate_tokens"},
            )  # fmt: skip

    def _count(self, plan: TokenPlan, own: int) -> tuple[int, int] | None:
        """Tokens that can be seen, with so many of our own, and consumers; None when a queue is gone."""
        # In this order: from the one to the other a token must pass a run first, and back it only needs to expire.
        ready, waiting = self._status(plan.queue_name), self._status(plan.waiting_name)
        if ready is None or waiting is None:
            return None
        return ready.messages + waiting.messages + own, ready.consumers

    def _status(self, queue_name: str) -> QueueStatus | None:
        return self._transport.queue_status(queue_name, timeout=_TIMEOUT)

    def _declare(self, topology: Topology) -> None:
        self._transport.ensure_topology(
            topology, mode=TopologyMode.DECLARE, timeout=_TIMEOUT, is_lasting=False
        )

    def _make(self, plan: TokenPlan, count: int, *, is_used: bool) -> None:
        for error in self._transport.publish_many(
            [plan.token(is_used=is_used) for _ in range(count)], timeout=_TIMEOUT
        ):
            if error is not None:
                raise error

    @contextlib.contextmanager
    def _locked(self, plan: TokenPlan) -> Generator[None]:
        """Be the only one who changes the number of tokens.

        Raises:
            AmqpTasksError: another has the lock for long, or the broker cannot be asked.
        """
        for _ in range(_LOCK_TRIES):
            try:
                self._declare(plan.lock)
                break
            except BrokerOperationError as exc:
                if exc.reply_code != _RESOURCE_LOCKED:
                    raise
            if self._closing.wait(_LOCK_PAUSE):
                raise AmqpTasksError("the worker stops")
        else:
            raise AmqpTasksError("another process has been making tokens for long")
        try:
            yield
        finally:
            self._transport.delete_queue(plan.lock.queue_names[0], timeout=_TIMEOUT)
