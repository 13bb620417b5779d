"""One look at one dead-letter queue: its messages arrive unacknowledged, and what is not removed goes back in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Self

from amqp_tasks.errors import BrokerUnreachable, MalformedMessage
from amqp_tasks.message import DeadLetter, dead_letter_queue_name
from amqp_tasks.message._letters import read_dead_letter
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement

if TYPE_CHECKING:
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport

__all__ = ("Found", "Look")

MAX_HELD = 10_000
_BATCH = 200
_IDLE = 1.0
_STALLED = 30.0
_CLOSE_TIMEOUT = 10.0
_BACK_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter and the delivery that brought it."""

    letter: DeadLetter
    delivery: Delivery


class Look:
    """A context in which it can be iterated over once, for batches of what is wanted; it ends with what lay there at first.

    1. Entering counts the queue's messages and consumes it. 2. Deliveries are read on the I/O thread; of what is not
    wanted nothing is kept. 3. `remove` acknowledges. 4. Leaving closes the consumer, which hands the rest back, and waits
    until the broker has it.

    Thread safety: one thread iterates and removes.

    Args:
        transport: the door to the broker.
        queue_name: the task queue.
        wanted: which letters; called on the I/O thread.
        keeps_bodies: whether the letters and their deliveries keep their bodies.
        limit: at most so many letters.
    """

    def __init__(
        self,
        transport: Transport,
        queue_name: str,
        wanted: Callable[[DeadLetter], bool],
        *,
        keeps_bodies: bool,
        limit: int | None,
    ) -> None:
        self._transport, self._queue_name = transport, queue_name
        self._dead_name = dead_letter_queue_name(queue_name)
        self._wanted, self._keeps_bodies, self._limit = wanted, keeps_bodies, limit
        self._inbox: SimpleQueue[Found | Exception | None] = SimpleQueue()
        self._consumer: Consumer | None = None
        self._is_consuming = self._is_stopping = False
        self._expected = self._removed = 0
        self._seen = 0  # written by the I/O thread, read by ours

    def __enter__(self) -> Self:
        status = self._transport.queue_status(self._dead_name)
        self._expected = status.messages if status is not None else 0
        if self._expected and self._limit != 0:
            self._consumer = self._transport.consume(
                [self._dead_name],
                ConsumerOptions(prefetch=min(MAX_HELD, self._expected)),
                on_deliveries=self._on_deliveries,
                on_event=self._on_event,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._consumer is not None:
            self._consumer.close(timeout=_CLOSE_TIMEOUT)
            self._wait_until_back()

    def __iter__(self) -> Iterator[Sequence[Found]]:
        left = self._limit
        for batch in self._batches() if self._consumer is not None else ():
            chosen = batch if left is None else batch[:left]
            yield chosen
            if left is not None:
                left -= len(chosen)
                if not left:
                    return

    def remove(self, found: Found) -> None:
        """Remove it from the queue."""
        assert self._consumer is not None
        self._consumer.settle(found.delivery, Settlement.ACK)
        self._removed += 1

    # On the I/O thread.

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._seen += 1
            letter = _read(self._queue_name, delivery)
            is_wanted = self._seen <= self._expected and self._wanted(letter)
            if not is_wanted or not self._keeps_bodies:
                delivery.body, letter = b"", replace(letter, body=None)
            if is_wanted:
                self._inbox.put(Found(letter, delivery))
        if self._seen >= self._expected:
            self._inbox.put(None)

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.state is ConsumerState.CONSUMING and self._is_stopping:
            self._inbox.put(None)  # no queue is consumed any more, and all that was handed out has come
        self._is_consuming = event.state is ConsumerState.CONSUMING
        if event.state in {ConsumerState.LOST, ConsumerState.FAILED}:
            # What was held is back in its queue; removals that were on their way may have to be made again.
            self._inbox.put(event.error or BrokerUnreachable("the connection was lost while looking"))

    # On ours.

    def _batches(self) -> Iterator[list[Found]]:
        batch: list[Found] = []
        for found in self._arrivals():
            if found is not None:
                batch.append(found)
            # The end may be told twice, so that one is left in the inbox.
            if batch and (found is None or len(batch) == _BATCH or self._inbox.empty()):
                yield batch
                batch = []

    def _arrivals(self) -> Iterator[Found | None]:
        """What arrives; None once, after the last."""
        seen, since = 0, time.monotonic()
        while True:
            try:
                item = self._inbox.get(timeout=_IDLE)
            except Empty:
                if self._seen != seen:
                    seen, since = self._seen, time.monotonic()
                    continue
                if not self._is_over():
                    self._check_stall(since)
                    continue
                item = None
            if isinstance(item, Exception):
                raise item
            yield item
            if item is None:
                return

    def _is_over(self) -> bool:
        """When nothing came for a while: whether nothing will come, as we hold all we may or the queue is gone.

        Others may have taken some of what was counted. Then the consumer is asked to stop, for what the broker has handed
        out may be on its way yet, and its answer comes behind that.
        """
        if self._seen - self._removed >= MAX_HELD:
            return True
        was_consuming = self._is_consuming
        status = self._transport.queue_status(self._dead_name)
        if status is not None and was_consuming and not status.messages and not self._is_stopping:
            assert self._consumer is not None
            self._is_stopping = True
            self._consumer.pause_queues([self._dead_name])
        return status is None

    def _check_stall(self, since: float) -> None:
        if time.monotonic() - since > _STALLED:
            raise BrokerUnreachable(
                f"queue {self._dead_name!r} has messages and delivers none: look whether its node is up, and try again"
            ) from None

    def _wait_until_back(self) -> None:
        """A return shows a moment after the consumer has closed; whoever looks next shall find all of them."""
        held = self._seen - self._removed
        deadline, pause = time.monotonic() + _BACK_WITHIN, Event()
        while held and time.monotonic() < deadline:
            status = self._transport.queue_status(self._dead_name)
            if status is None or status.messages >= held:
                return
            pause.wait(0.02)


def _read(queue_name: str, delivery: Delivery) -> DeadLetter:
    try:
        properties = delivery.properties
    except MalformedMessage:
        properties = None
    return read_dead_letter(queue_name, properties, delivery.body)
