"""Moving all messages of one queue to another: confirmed there before each is acknowledged here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from amqp_tasks.errors import BrokerUnreachable, MalformedMessage
from amqp_tasks.message import DeadLetterReason, dead_letter, moved
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement

if TYPE_CHECKING:
    from amqp_tasks.errors import PublishError
    from amqp_tasks.message import OutgoingMessage
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport

__all__ = ("Mover",)

PREFETCH = 500
_LOOK_EVERY = 0.1
_STALLED = 60.0
_CLOSE_TIMEOUT = 10.0


class Mover:
    """A context in which messages are moved, whatever arrives, until it is left.

    1. Entering consumes the source. 2. On the I/O thread each delivery is published to the target and, when that is confirmed,
    acknowledged. 3. `wait_until_quiet` waits in the caller. 4. Leaving closes the consumer: what was not confirmed goes back. A lost
    connection is ridden out; what was confirmed but not acknowledged then comes again and is moved once more.

    Thread safety: one thread uses it; `moved` may be read by any.

    Args:
        transport: the door to the broker.
        source: name of the queue that is emptied.
        target: name of the queue that is filled.
        queue_name: the task queue that both are about; what cannot be read goes to its dead letters.
    """

    def __init__(self, transport: Transport, source: str, target: str, *, queue_name: str) -> None:
        self._transport, self._source, self._target = transport, source, target
        self._queue_name = queue_name
        self._consumer: Consumer | None = None
        self._changed = threading.Condition()
        # Guarded by the condition; written on the I/O thread.
        self._in_flight = 0
        self._changed_at = time.monotonic()
        self._is_consuming = False
        self._error: Exception | None = None
        self.moved = 0
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self._consumer = self._transport.consume(
            [self._source],
            ConsumerOptions(prefetch=PREFETCH),
            on_deliveries=self._on_deliveries,
            on_event=self._on_event,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        with self._changed:
            # What is confirmed and not acknowledged would be there twice.
            self._changed.wait_for(lambda: not self._in_flight, _CLOSE_TIMEOUT)
        if self._consumer is not None:
            self._consumer.close(timeout=_CLOSE_TIMEOUT)

    def wait_until_quiet(self, quiet: float, patience: float, on_look: Callable[[int], None]) -> bool:
        """Wait until the source is empty, nothing is under way and nothing has arrived for `quiet` seconds.

        Args:
            quiet: seconds.
            patience: seconds after the source was first seen empty, in which that must come about.
            on_look: called now and then with the number of messages that are left.

        Returns:
            False when it did not come about: messages keep arriving.

        Raises:
            PublishError: a message could not be moved; it stays.
            BrokerConnectionError, BrokerOperationError: the broker is away for too long, or refuses.
        """
        empty_since: float | None = None
        while True:
            status = self._transport.queue_status(self._source)
            ready, now = (status.messages if status is not None else 0), time.monotonic()
            with self._changed:
                if self._error is not None:
                    raise self._error
                in_flight, calm = self._in_flight, now - self._changed_at
                is_consuming = self._is_consuming
            on_look(ready + in_flight)
            if is_consuming and status is not None and not status.consumers:
                # We are one. RabbitMQ says 0 and 0 of a quorum queue whose leader does not tell it in a quarter of a second.
                empty_since = None
            elif not ready:
                empty_since = now if empty_since is None else empty_since
                if is_consuming and not in_flight and calm >= quiet:
                    return True
                if now - empty_since > max(patience, quiet):
                    return False
            elif calm > _STALLED:
                raise BrokerUnreachable(
                    f"queue {self._source!r} has messages, and none can be moved: look whether its node is up, and run this again"
                )
            self._is_over.wait(_LOOK_EVERY)

    def other_consumers(self) -> int:
        """How many others consume the source.

        Raises:
            BrokerUnreachable: the broker does not count ours: see `wait_until_quiet`.
        """
        deadline = time.monotonic() + _STALLED
        while (status := self._transport.queue_status(self._source)) is not None:
            if status.consumers:
                return status.consumers - 1
            if time.monotonic() > deadline:
                raise BrokerUnreachable(
                    f"the broker does not say who consumes queue {self._source!r}: look whether its node is up, and run this again"
                )
            self._is_over.wait(_LOOK_EVERY)
        return 0

    # On the I/O thread.

    def _on_event(self, event: ConsumerEvent) -> None:
        with self._changed:
            self._is_consuming = event.state is ConsumerState.CONSUMING
            if event.state is ConsumerState.FAILED:
                self._error = event.error

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if self._is_over.is_set():
            return  # closing hands them back
        with self._changed:
            self._in_flight += len(deliveries)
            self._changed_at = time.monotonic()
        for delivery in deliveries:
            self._transport.publish_nowait(self._message(delivery), partial(self._on_outcome, delivery))

    def _message(self, delivery: Delivery) -> OutgoingMessage:
        try:
            return moved(delivery.properties, delivery.body, self._target)
        except MalformedMessage as exc:
            # As a worker would do with it.
            return dead_letter(
                queue_name=self._queue_name,
                exchange=delivery.exchange,
                routing_key=delivery.routing_key,
                properties=None,
                body=delivery.body,
                reason=DeadLetterReason.BAD_HEADERS,
                detail=exc.detail,
            )

    def _on_outcome(self, delivery: Delivery, error: PublishError | None) -> None:
        # Acknowledged only now that the target has it: a death in between leaves it twice, and never not at all.
        if error is None and self._consumer is not None:
            self._consumer.settle(delivery, Settlement.ACK)
        with self._changed:
            self._in_flight -= 1
            self._changed_at = time.monotonic()
            if error is None:
                self.moved += 1
            elif self._error is None:
                self._error = error
            self._changed.notify_all()
