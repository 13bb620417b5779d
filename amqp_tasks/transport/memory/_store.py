"""Where ready messages lie: the queues of one kombu memory channel, ordered as RabbitMQ orders them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from queue import PriorityQueue
from typing import Any

from amqp_tasks.message import Properties

__all__ = ("MessageStore", "Stored")


@dataclass(slots=True, kw_only=True)
class Stored:
    """A message in one queue. Guarded by the broker's lock."""

    position: int
    """Its place in the queue, kept when it comes back."""
    priority: int
    properties: Properties
    body: bytes
    exchange: str
    routing_key: str
    deadline: float | None
    """When it expires, on the monotonic clock."""
    redelivered: bool = False
    delivery_count: int = 0


class MessageStore:
    """Ready messages of one broker, by queue. Not thread-safe: the broker's lock guards it."""

    def __init__(self) -> None:
        kombu: Any = import_module("kombu")
        # kombu ships no types, hence the detour. Its channel's queues are shared by the whole process: ours get a table of their own.
        self._channel: Any = kombu.Connection("memory://").channel()
        self._channel.queues = {}

    def add_queue(self, name: str) -> None:
        """Make an empty queue: highest priority first, then by position, so that what comes back comes first."""
        self._channel.queues[name] = PriorityQueue()

    def remove_queue(self, name: str) -> None:
        """Forget a queue with all it holds."""
        self._channel._delete(name)

    def put(self, name: str, message: Stored) -> None:
        """Add a message at its place."""
        self._channel._put(name, (-message.priority, message.position, message))

    def peek(self, name: str) -> Stored | None:
        """The message at the head, or None."""
        waiting: list[tuple[int, int, Stored]] = self._channel.queues[name].queue
        return waiting[0][2] if waiting else None

    def take(self, name: str) -> Stored:
        """Remove the message at the head; there must be one."""
        message: Stored = self._channel._get(name)[2]
        return message

    def count(self, name: str) -> int:
        """How many messages are ready."""
        return int(self._channel._size(name))

    def size(self, name: str) -> int:
        """How many bytes their bodies have."""
        waiting: list[tuple[int, int, Stored]] = self._channel.queues[name].queue
        return sum(len(message.body) for _, _, message in waiting)

    def purge(self, name: str) -> int:
        """Remove all ready messages; returns how many."""
        return int(self._channel._purge(name))
