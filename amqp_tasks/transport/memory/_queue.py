"""One queue of a memory broker: its ready messages, and who gets the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from amqp_routing import Overflow, Queue, QueueType
from amqp_tasks.transport.memory._store import MessageStore, Stored

__all__ = ("HeldQueue", "Subscriber")


class Subscriber(Protocol):
    """A consumer of one queue, as the queue sees it. Called with the broker's lock held."""

    @property
    def priority(self) -> int:
        """`x-priority`."""
        ...

    @property
    def is_exclusive(self) -> bool:
        """Whether it refuses others."""
        ...

    def has_room(self) -> bool:
        """Whether its prefetch allows another message."""
        ...

    def hand(self, message: Stored) -> None:
        """Take a message."""
        ...


class HeldQueue:
    """Not thread-safe: the broker's lock guards it."""

    def __init__(self, declared: Queue, store: MessageStore, now: float) -> None:
        self.declared = declared
        self.name = declared.name
        self.store = store
        self.subscribers: list[Subscriber] = []
        self.last_used = now
        store.add_queue(self.name)

    def priority_of(self, wanted: int | None) -> int:
        """A message's priority here: none unless the queue has `max_priority`, and no more than that."""
        return min(wanted or 0, self.declared.max_priority or 0)

    @property
    def counts_deliveries(self) -> bool:
        """Whether it is a quorum queue, which notes how often a message came back."""
        return self.declared.type is QueueType.QUORUM

    def is_over_limit(self, message: Stored) -> bool:
        """Whether the message came back too often."""
        limit = self.declared.delivery_limit
        return self.counts_deliveries and limit is not None and message.delivery_count > limit

    def refuses(self, size: int) -> bool:
        """Whether it is full and refuses new messages rather than drop old ones."""
        overflow = self.declared.overflow
        if overflow is None or overflow is Overflow.DROP_HEAD:
            return False
        return self._is_beyond(1, size)

    @property
    def refused_is_dead(self) -> bool:
        """Whether a message that is refused goes to the dead letters as well."""
        return self.declared.overflow is Overflow.REJECT_PUBLISH_DLX

    def surplus(self) -> Iterator[Stored]:
        """Remove and return messages from the head until the queue is within its maximum."""
        while self._is_beyond(0, 0) and self.store.count(self.name):
            yield self.store.take(self.name)

    def _is_beyond(self, more: int, size: int) -> bool:
        declared = self.declared
        if declared.max_length is not None and self.store.count(self.name) + more > declared.max_length:
            return True
        limit = declared.max_length_bytes
        return limit is not None and self.store.size(self.name) + size > limit

    def next_subscriber(self) -> Subscriber | None:
        """Whose turn it is: the highest priority with room, in turn; with a single active consumer, the first."""
        eligible = self.subscribers[:1] if self.declared.single_active_consumer else self.subscribers
        free = [each for each in eligible if each.has_room()]
        if not free:
            return None
        chosen = max(free, key=lambda each: each.priority)
        if not self.declared.single_active_consumer:
            self.subscribers.remove(chosen)
            self.subscribers.append(chosen)
        return chosen

    def is_unused_since(self, now: float) -> bool:
        """Whether its `expires` has passed without a consumer, a declaration or a look."""
        expires = self.declared.expires
        return expires is not None and not self.subscribers and now - self.last_used >= expires
