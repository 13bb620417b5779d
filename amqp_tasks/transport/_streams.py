"""Where a consumer of streams reads on: a stream keeps no place for its readers, so they keep it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.transport._contract import Delivery

__all__ = ("OFFSET", "StreamPlaces")

OFFSET = "x-stream-offset"
"""As a consumer argument: where to begin. As a header of a delivery: its place in the stream."""


class StreamPlaces:
    """The consumer arguments of each queue, moved on as streams are read. Owner thread only.

    Args:
        arguments: `ConsumerOptions.arguments`; a queue whose arguments have `x-stream-offset` is a stream.
    """

    def __init__(self, arguments: Mapping[str, Mapping[str, Any]]) -> None:
        self._given = arguments
        self._next = {name: table[OFFSET] for name, table in arguments.items() if OFFSET in table}

    @property
    def are_any(self) -> bool:
        """Whether a stream is among the queues."""
        return bool(self._next)

    def note(self, deliveries: Sequence[Delivery]) -> None:
        """These are handed out."""
        if not self._next:
            return
        for delivery in deliveries:
            if delivery.queue_name in self._next and (offset := _offset_of(delivery)) is not None:
                self._next[delivery.queue_name] = offset + 1

    def begin_again(self, name: str) -> None:
        """The queue is gone: what takes its place is read as the first one was."""
        if name in self._next:
            self._next[name] = self._given[name][OFFSET]

    def arguments(self, name: str) -> dict[str, Any] | None:
        """What to consume the queue with now; None: nothing in particular."""
        table = dict(self._given.get(name, {}))
        if name in self._next:
            table[OFFSET] = self._next[name]
        return table or None


def _offset_of(delivery: Delivery) -> int | None:
    try:
        offset = delivery.properties.headers.get(OFFSET)
    except MalformedMessage:
        # Read again after a reconnect, at worst: whoever follows a stream passes over what it knows.
        return None
    return offset if isinstance(offset, int) else None
