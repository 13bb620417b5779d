"""Redelivered messages: has the task crashed, does it still run, is it finished? Asked before anything is run again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._verdicts import UNKNOWN, Verdict, Verdicts

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.transport import Delivery

__all__ = ("Redeliveries", "RedeliveryEffects")

logger = logging.getLogger(__name__)

ASK_AGAIN_AFTER = 1.0
ANSWER_LIMIT = 5.0
"""Seconds after which an answer is not waited for any more, and the delivery goes back to the broker."""


class RedeliveryEffects(Protocol):
    """What may become of a redelivery. Called without locks held, by any thread."""

    def proceed(self, jobs: Sequence[Job]) -> None:
        """They may run (alone, where `crashes` says so)."""

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """Requeue them."""

    def acknowledge_duplicate(self, job: Job) -> None:
        """It is finished already."""

    def refuse_duplicate(self, job: Job) -> None:
        """It is over and was refused; the broker may not have heard that."""

    def give_up(self, job: Job, verdict: Verdict) -> None:
        """It crashed too often."""

    def time_out(self, job: Job) -> None:
        """It passed its hard limit, and its process could not say so."""

    def resize(self) -> None:
        """`held` has changed."""

    def let_go(self, stale: Delivery) -> None:
        """Ack one that the broker has taken back, on a channel that lives: RabbitMQ gives a consumer nothing more until
        what timed out is settled."""


class Redeliveries:
    """Deliveries that wait for an answer, and those that are held because their task runs in another process.

    Thread safety: any thread.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        verdicts: Verdicts,
        effects: RedeliveryEffects,
        crash_limit: int,
        clock: Clock,
    ) -> None:
        self._ledger, self._verdicts, self._effects = ledger, verdicts, effects
        self._crash_limit, self._clock = crash_limit, clock
        self._lock = threading.Lock()
        self._asked: dict[Job, float] = {}
        self._held: dict[Job, float] = {}
        self._asked_again: set[Job] = set()  # they were held, and keep their room
        self._room = 0
        self._is_closed = False

    @property
    def count(self) -> int:
        """Deliveries that wait here."""
        return len(self._asked) + len(self._held)

    @property
    def held(self) -> int:
        """Deliveries that wait for a run elsewhere; the prefetch must leave room beside them."""
        return self._room

    def take(self, jobs: Iterable[Job]) -> None:
        """Accept redelivered messages."""
        unknown: list[Job] = []
        for job in jobs:
            if (stale := self._ledger.adopt(job)) is not None:
                logger.info("task %s still runs here; its redelivery is adopted", job.name, extra=_about(job))
                if stale.epoch == job.delivery.epoch:
                    self._effects.let_go(stale)
            elif self._ledger.is_finished(job.key):
                self._effects.acknowledge_duplicate(job)
            elif self._ledger.is_refused(job.key):
                self._effects.refuse_duplicate(job)
            else:
                unknown.append(job)
        if unknown:
            self._ask(unknown)

    def tick(self) -> None:
        """Ask again about held ones, and give up waiting for answers; to be called a few times a second."""
        if not self.count:
            return
        now = self._clock.monotonic()
        with self._lock:
            again = [job for job, since in self._held.items() if now - since >= ASK_AGAIN_AFTER]
            late = [job for job, since in self._asked.items() if now - since >= ANSWER_LIMIT]
            for job in again:
                del self._held[job]
            for job in late:
                del self._asked[job]
            self._asked_again.update(again)
        if late:
            self._effects.hand_back(late)
        if again:
            self.take(again)
        if again or late:
            self._make_room()

    def drop(self, is_lost: Callable[[Job], bool]) -> None:
        """Forget those whose connection is lost."""
        with self._lock:
            for table in (self._asked, self._held):
                for job in [job for job in table if is_lost(job)]:
                    del table[job]
        self._make_room()

    def close(self) -> None:
        """Hand all back; those that come later too."""
        with self._lock:
            self._is_closed = True
            rest = [*self._asked, *self._held]
            self._asked.clear()
            self._held.clear()
            self._room = 0
        if rest:
            self._effects.hand_back(rest)

    def _ask(self, jobs: list[Job]) -> None:
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                # Lost before we had the lock: `drop` has run and did not see them.
                jobs = [job for job in jobs if not self._ledger.is_lost(job.delivery)]
                self._asked.update(dict.fromkeys(jobs, self._clock.monotonic()))
        if is_closed:
            self._effects.hand_back(jobs)
            return
        if jobs:
            self._verdicts.ask([job.key for job in jobs], partial(self._answered, jobs))

    def _answered(self, jobs: Sequence[Job], found: Mapping[str, Verdict]) -> None:
        with self._lock:
            # Those that are no longer here were handed back or lost meanwhile.
            waiting = [job for job in jobs if self._asked.pop(job, None) is not None]
        free: list[Job] = []
        held: list[Job] = []
        for job in waiting:
            verdict = found.get(job.key, UNKNOWN)
            job.crashes = verdict.crashes
            if verdict.is_finished:
                self._effects.acknowledge_duplicate(job)
            elif verdict.is_refused:
                self._effects.refuse_duplicate(job)
            elif verdict.is_running:
                # Also what is to be given up: who runs it may be just about that.
                held.append(job)
            elif verdict.is_timed_out:
                self._effects.time_out(job)
            elif verdict.crashes >= self._crash_limit:
                self._effects.give_up(job, verdict)
            elif self._may_have_crashed_more(job, verdict):
                logger.info(
                    "task %s may have crashed more often than is known here; its redelivery is held for a moment",
                    job.name,
                    extra=_about(job),
                )
                job.has_awaited_news = True
                held.append(job)
            else:
                free.append(job)
        if held:
            self._hold(held)
        self._make_room()
        if free:
            self._effects.proceed(free)

    def _may_have_crashed_more(self, job: Job, verdict: Verdict) -> bool:
        """Whether it has been delivered as often as it may crash, one crash is known, and the news of others may be on their way."""
        if not verdict.crashes or job.has_awaited_news or job.envelope is None:
            return False
        return job.envelope.delivery_count >= self._crash_limit

    def _hold(self, jobs: list[Job]) -> None:
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                jobs = [job for job in jobs if not self._ledger.is_lost(job.delivery)]
                self._held.update(dict.fromkeys(jobs, self._clock.monotonic()))
        if is_closed:
            self._effects.hand_back(jobs)
            return
        for job in jobs:
            if job not in self._asked_again and not job.has_awaited_news:
                logger.info(
                    "task %s still runs in another process; its redelivery is held",
                    job.name,
                    extra=_about(job),
                )

    def _make_room(self) -> None:
        """Have the prefetch follow when more or fewer are held."""
        with self._lock:
            self._asked_again &= self._asked.keys()
            before, self._room = self._room, len(self._held) + len(self._asked_again)
            is_changed = self._room != before
        if is_changed:
            self._effects.resize()


def _about(job: Job) -> dict[str, str]:
    return {"action": "redelivered", "task_id": job.envelope.id if job.envelope is not None else ""}
