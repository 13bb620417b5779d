"""The deliveries that are begun and not settled: what makes each of them end exactly once.

It also knows, after a lost connection, which redeliveries are of tasks that still run here or that are finished.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._verdicts import MAX_AGE, RecentKeys

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.transport import Delivery

__all__ = ("Closing", "Ledger")

Closing = tuple["Delivery", bool]
"""The delivery to settle, and whether the supervisor must hear of its end: its connection is lost, or one before was, and the
supervisor was told that the job is still open."""


class Ledger:
    """Open jobs by key. Thread safety: any thread.

    Args:
        in_flight: how many acks can be lost at most when a connection breaks: what the broker lets be unacked.
        clock: monotonic time.
    """

    def __init__(self, *, in_flight: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Job] = {}
        self._count = 0
        # Epoch, key, time, and whether it was refused.
        self._settled: deque[tuple[int, str, float, bool]] = deque(maxlen=in_flight)
        self._finished, self._refused = RecentKeys(clock=clock), RecentKeys(clock=clock)
        self._lost_epoch = -1
        self._told_open: set[str] = set()
        self._taken_back: set[str] = set()

    @property
    def count(self) -> int:
        """Jobs that are open."""
        return self._count

    def is_open(self, key: str) -> bool:
        """Whether a job with this key is open."""
        with self._lock:
            return key in self._open

    def open(self, job: Job) -> None:
        """Begin a job: it will be closed exactly once."""
        with self._lock:
            self._count += 1
            if job.key:
                self._open[job.key] = job

    def close(self, job: Job) -> Closing:
        """End a job: the one place from which a delivery is settled.

        What is refused does not count as finished: were the refusal lost, to ack the redelivery would keep it from the dead letters
        of its queue, which is why that is refused, too.
        """
        with self._lock:
            self._count -= 1
            assert self._count >= 0
            delivery = job.delivery
            is_lost = delivery.epoch <= self._lost_epoch
            was_told = job.key in self._told_open
            if job.key:
                self._told_open.discard(job.key)
                self._taken_back.discard(job.key)
                if self._open.get(job.key) is job:
                    del self._open[job.key]
                if not is_lost:
                    self._settled.append(
                        (delivery.epoch, job.key, self._clock.monotonic(), job.goes_to_broker)
                    )
                else:
                    (self._refused if job.goes_to_broker else self._finished).add((job.key,))
        return delivery, is_lost or was_told

    def release(self, job: Job) -> Delivery | None:
        """End a job that is not finished and give the delivery to requeue; None when its connection is or was lost.

        The supervisor then holds its redelivery back until it hears that the job is finished, so the job stays open.
        """
        with self._lock:
            delivery = job.delivery
            if delivery.epoch <= self._lost_epoch or job.key in self._told_open:
                return None
            self._count -= 1
            if self._open.get(job.key) is job:
                del self._open[job.key]
        return delivery

    def adopt(self, redelivered: Job) -> Delivery | None:
        """Let a redelivery take the place of the stale delivery of an open job, and return that one.

        None when no job with this key is open, or when its delivery is not stale: then it is another message.
        """
        with self._lock:
            job, delivery = self._open.get(redelivered.key), redelivered.delivery
            if job is None or not self._is_stale(job, delivery):
                return None
            stale, job.delivery = job.delivery, delivery
            self._taken_back.discard(job.key)
            # An early ack did not reach the broker; this delivery gets one at the end.
            job.is_acked = False
            return stale

    def _is_stale(self, job: Job, redelivery: Delivery) -> bool:
        return job.delivery.epoch < redelivery.epoch or job.key in self._taken_back

    def take_back(self, queue_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The broker has cancelled the consumer of a queue and may deliver again what it had, on the same channel.

        Returns what `lose` does.
        """
        with self._lock:
            maybe = self._note_settled()
            keys = tuple(
                key
                for key, job in self._open.items()
                if job.delivery.queue_name == queue_name and not job.is_acked
            )
            self._taken_back.update(keys)
            self._told_open.update(keys)
            return keys, maybe

    def is_finished(self, key: str) -> bool:
        """Whether it finished here and its ack may have been lost."""
        with self._lock:
            return key in self._finished

    def is_refused(self, key: str) -> bool:
        """Whether it was refused here and the refusal may have been lost."""
        with self._lock:
            return key in self._refused

    def lose(self, epoch: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The connection of `epoch` is gone. Returns the keys still open, and those whose acks or refusals may be lost."""
        with self._lock:
            self._lost_epoch = max(self._lost_epoch, epoch)
            maybe = self._note_settled(epoch)
            self._settled.clear()
            self._told_open.update(self._open)
            return tuple(self._open), maybe

    def _note_settled(self, epoch: float = math.inf) -> tuple[str, ...]:
        # What was settled long ago the broker knows, and its id may have come again: in a quiet worker they stay here for days.
        oldest = self._clock.monotonic() - MAX_AGE
        maybe = [each for each in self._settled if each[0] <= epoch and each[2] > oldest]
        self._finished.add(key for _, key, _, is_refused in maybe if not is_refused)
        self._refused.add(key for _, key, _, is_refused in maybe if is_refused)
        return tuple(key for _, key, _, _ in maybe)

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether its connection is known to be lost: the broker has it back."""
        return delivery.epoch <= self._lost_epoch
