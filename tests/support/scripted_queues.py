"""The queues of `ScriptedBroker`: what lies where, who gets it, what goes back. No I/O of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pika import spec

__all__ = ("Channel", "Consumer", "Message", "Queue", "Queues")


@dataclass(slots=True, eq=False)
class Message:
    """A message."""

    exchange: str
    routing_key: str
    properties: spec.BasicProperties
    mandatory: bool = False
    size: int = 0
    body: bytes = b""
    redelivered: bool = False
    rejects: int = 0


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer of one channel."""

    channel: Channel
    tag: str
    no_ack: bool
    prefetch: int

    @property
    def has_room(self) -> bool:
        """Whether its prefetch allows one more."""
        own = sum(consumer is self for consumer, _, _ in self.channel.unacked.values())
        return not self.prefetch or own < self.prefetch


@dataclass(slots=True, eq=False)
class Queue:
    """A queue."""

    name: str
    messages: deque[Message] = field(default_factory=deque[Message])
    consumers: list[Consumer] = field(default_factory=list[Consumer])


@dataclass(slots=True, eq=False)
class Channel:
    """One channel of one connection; `deliver` sends a message to one of its consumers."""

    deliver: Callable[[Consumer, Queue, Message], None]
    number: int
    is_confirming: bool = False
    is_closing: bool = False
    prefetch: int = 0
    published: int = 0
    delivered: int = 0
    incoming: Message | None = None
    unacked: dict[int, tuple[Consumer, Queue, Message]] = field(default_factory=dict)  # by delivery tag


class Queues:
    """All queues, exchanges and bindings. An exchange hands a message to the first queue bound to it."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._bound: dict[str, list[tuple[str, str]]] = {}

    def queue(self, name: str, *, make: bool = False) -> Queue | None:
        """One of the queues."""
        if make:
            self._queues.setdefault(name, Queue(name))
        return self._queues.get(name)

    def messages(self) -> Iterator[Message]:
        """All that lie in queues, when no channel is left that holds one."""
        for queue in self._queues.values():
            yield from queue.messages

    def drop_queue(self, name: str) -> int:
        """Delete a queue; returns how many messages it held."""
        dropped = self._queues.pop(name, None)
        return len(dropped.messages) if dropped is not None else 0

    def exchange(self, name: str, *, make: bool = False) -> bool:
        """Whether there is such an exchange (now)."""
        if make:
            self._bound.setdefault(name, [])
        return name in self._bound or not name or name.startswith("amq.")

    def bind(self, source: str, kind: str, destination: str) -> None:
        """Bind a queue or an exchange."""
        bound = self._bound.setdefault(source, [])
        if (kind, destination) not in bound:
            bound.append((kind, destination))

    def route(self, exchange: str, routing_key: str) -> Queue | None:
        """Where a message goes."""
        if not exchange:
            return self._queues.get(routing_key)
        for kind, name in self._bound.get(exchange, ()):
            found = self._queues.get(name) if kind == "queue" else self.route(name, routing_key)
            if found is not None:
                return found
        return None

    def pump(self) -> None:
        """Deliver what can be delivered."""
        for queue in self._queues.values():
            while queue.messages and (free := [each for each in queue.consumers if each.has_room]):
                consumer = free[0]
                queue.consumers.remove(consumer)
                queue.consumers.append(consumer)
                consumer.channel.deliver(consumer, queue, queue.messages.popleft())

    def forget(self, channel: Channel) -> None:
        """A channel is gone: its consumers too, and what they held goes back."""
        for queue in self._queues.values():
            queue.consumers = [each for each in queue.consumers if each.channel is not channel]
        for _, queue, message in reversed(channel.unacked.values()):
            message.redelivered = True
            queue.messages.appendleft(message)
        channel.unacked.clear()
        self.pump()

    def settle(self, channel: Channel, tag: int, *, multiple: bool, requeue: bool) -> None:
        """`basic.ack`, `basic.nack` and `basic.reject`."""
        tags = [each for each in channel.unacked if each == tag or (multiple and each <= tag)]
        for each in reversed(tags):
            _, queue, message = channel.unacked.pop(each)
            if requeue:
                message.redelivered = True
                queue.messages.appendleft(message)

    def cancel(self, channel: Channel, tag: str) -> None:
        """End a consumer; what it holds stays with the channel."""
        for queue in self._queues.values():
            queue.consumers = [
                each for each in queue.consumers if each.channel is not channel or each.tag != tag
            ]
