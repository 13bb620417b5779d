"""An AMQP client that shares no code with ours: it puts messages in and takes them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from support.eventually import eventually
from support.observing import tell_message

__all__ = ("RawClient", "RawMessage")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMessage:
    """A message as it lay in the queue."""

    body: bytes
    headers: dict[str, Any]
    properties: pika.BasicProperties
    exchange: str
    routing_key: str
    redelivered: bool


class RawClient:
    """A blocking connection. Owner thread only; the owner closes it, or use it in a `with`."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0
        parameters.socket_timeout = parameters.blocked_connection_timeout = 10
        self.connection = pika.BlockingConnection(parameters)
        self._channel: BlockingChannel | None = None

    @property
    def channel(self) -> BlockingChannel:
        """A channel in confirm mode; a new one after the broker has closed the last."""
        if self._channel is None or self._channel.is_closed:
            self._channel = self.connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def declare(
        self, queue: str, arguments: Mapping[str, Any] | None = None, *, durable: bool = True
    ) -> None:
        """Declare a queue; without arguments a durable classic one."""
        self.channel.queue_declare(queue, durable=durable, arguments=dict(arguments or {}))

    def publish(
        self,
        queue: str,
        body: bytes = b"",
        headers: Mapping[str, Any] | None = None,
        *,
        exchange: str = "",
        **properties: Any,
    ) -> None:
        """Publish to a queue (or exchange and key), confirmed and mandatory.

        Raises:
            pika.exceptions.UnroutableError: it reached no queue.
        """
        made = pika.BasicProperties(headers=dict(headers or {}), delivery_mode=2)
        for name, value in properties.items():
            setattr(made, name, value)
        tell_message("put", headers)
        self.channel.basic_publish(exchange, queue, body, made, mandatory=True)

    def get(self, queue: str, *, within: float = 5.0) -> RawMessage:
        """Take the next message of a queue, waited for.

        Raises:
            AssertionError: none came in time.
        """
        found = eventually(lambda: self._next(queue), within)
        assert isinstance(found, RawMessage), f"no message in {queue!r} within {within} s"
        return found

    def _next(self, queue: str) -> RawMessage | None:
        found = self.get_nowait(queue)
        assert found is not None, f"no message in {queue!r}"
        return found

    def get_nowait(self, queue: str) -> RawMessage | None:
        """Take the next message, or None when the queue is empty."""
        frame, properties, body = self.channel.basic_get(queue, auto_ack=True)
        if frame is None or properties is None:
            return None
        tell_message("taken", properties.headers)
        return RawMessage(
            body=body or b"",
            headers=dict(properties.headers or {}),
            properties=properties,
            exchange=frame.exchange or "",
            routing_key=frame.routing_key or "",
            redelivered=frame.redelivered,
        )

    def drain(self, queue: str) -> list[RawMessage]:
        """Take all messages that are ready."""
        found: list[RawMessage] = []
        while (message := self.get_nowait(queue)) is not None:
            found.append(message)
        return found

    def depth(self, queue: str) -> int:
        """Ready messages, by a passive declare; -1 when there is no such queue."""
        return self._passive(queue)[0]

    def consumers(self, queue: str) -> int:
        """Consumers, by a passive declare; -1 when there is no such queue."""
        return self._passive(queue)[1]

    def _passive(self, queue: str) -> tuple[int, int]:
        try:
            answer = self.channel.queue_declare(queue, passive=True).method
        except ChannelClosedByBroker as exc:
            if exc.reply_code != 404:
                raise
            return -1, -1
        return answer.message_count, answer.consumer_count

    def purge(self, queue: str) -> None:
        """Remove all ready messages."""
        self.channel.queue_purge(queue)

    def delete(self, queue: str) -> None:
        """Delete a queue."""
        self.channel.queue_delete(queue)

    def delete_exchange(self, exchange: str) -> None:
        """Delete an exchange."""
        self.channel.exchange_delete(exchange)

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self.connection.is_open:
            self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
