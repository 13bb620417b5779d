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
    acknowledged. 3. `wait_until_quiet` waits in the caller. 4. `finish`, when the source was deleted, waits for what the broker
    had handed out before. 5. Leaving closes the consumer: what was not confirmed goes back. A lost connection is ridden out;
    what was confirmed but not acknowledged then comes again and is moved once more.

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
        self._is_consuming = self._is_stopping = False
        self._error: Exception | None = None
        self.moved = 0
        self._has_stopped = threading.Event()
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
            False when it did not come about: messages keep arriving, or the target does not confirm them.

        Raises:
            PublishError: a message could not be moved; it stays.
            BrokerConnectionError, BrokerOperationError: the broker is away for too long, or refuses.
        """
        empty_since = uncounted_since = None
        while True:
            status = self._transport.queue_status(self._source)
            now = time.monotonic()
            with self._changed:
                if self._error is not None:
                    raise self._error
                in_flight, changed_at, is_consuming = self._in_flight, self._changed_at, self._is_consuming
            on_look((status.messages if status is not None else 0) + in_flight)
            if status is None or not status.consumers or not is_consuming:
                # We are one. RabbitMQ says 0 and 0 of a quorum queue whose leader does not tell it in a quarter of a second.
                uncounted_since = now if uncounted_since is None else uncounted_since
                self._check_counted(now - uncounted_since)
            elif status.messages:
                uncounted_since = None
                self._check_moving(now - changed_at)
            else:
                uncounted_since = None
                empty_since = now if empty_since is None else empty_since
                if not in_flight and now - changed_at >= quiet and self._is_at_rest(changed_at):
                    return True
                if now - empty_since > max(patience, quiet):
                    return False
            self._is_over.wait(_LOOK_EVERY)

    def finish(self) -> None:
        """Wait until all has come, and is moved, that the broker had handed out before the source was deleted.

        Raises:
            PublishError: a message could not be moved, and has no other place.
        """
        self._stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight or self._error is not None, _STALLED)
            if self._error is not None:
                raise self._error

    def other_consumers(self) -> int:
        """How many others consume the source.

        Raises:
            BrokerUnreachable: the broker does not count ours: see `wait_until_quiet`.
        """
        since = time.monotonic()
        while (status := self._transport.queue_status(self._source)) is not None:
            if status.consumers:
                return status.consumers - 1
            self._check_counted(time.monotonic() - since)
            self._is_over.wait(_LOOK_EVERY)
        return 0

    def _check_counted(self, seconds: float) -> None:
        if seconds > _STALLED:
            raise BrokerUnreachable(
                f"the broker does not say who consumes queue {self._source!r}: look whether its node is up, and run this again"
            )

    def _check_moving(self, seconds: float) -> None:
        if seconds > _STALLED:
            raise BrokerUnreachable(
                f"queue {self._source!r} has messages, and none can be moved: look whether its node is up, and run this again"
            )

    def _is_at_rest(self, changed_at: float) -> bool:
        """Whether nothing was on its way to us: the broker counts what it has handed out, however large, as gone."""
        self._stop()
        with self._changed:
            # It consumes again when that is told, and not before.
            self._is_stopping = self._is_consuming = False
            is_at_rest = changed_at == self._changed_at and not self._in_flight
        self._consume(())
        return is_at_rest

    def _stop(self) -> None:
        """Stop to consume. The broker's answer comes behind all that it has handed out.

        Raises:
            Exception: that with which consuming or moving has failed.
            BrokerUnreachable: it does not come.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._is_stopping = True
            self._has_stopped.clear()
        self._consume((self._source,))
        if not self._has_stopped.wait(_STALLED):
            raise BrokerUnreachable(
                f"the broker does not end to deliver queue {self._source!r}: look whether its node is up, and run this again"
            )

    def _consume(self, all_but: Sequence[str]) -> None:
        assert self._consumer is not None
        self._consumer.pause_queues(all_but)

    # On the I/O thread.

    def _on_event(self, event: ConsumerEvent) -> None:
        with self._changed:
            self._is_consuming = event.state is ConsumerState.CONSUMING
            if not self._is_consuming:
                self._changed_at = time.monotonic()  # what was on its way may be back in the source
            elif self._is_stopping:
                self._has_stopped.set()
            if event.state is ConsumerState.FAILED:
                self._error = event.error
                self._has_stopped.set()

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
