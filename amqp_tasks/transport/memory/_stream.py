"""A stream of a memory broker: a log that each reader reads from a place of its own."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from itertools import islice
from typing import Protocol, runtime_checkable

from amqp_routing import Queue
from amqp_tasks.transport._streams import OFFSET
from amqp_tasks.transport.memory._queue import HeldQueue, Subscriber
from amqp_tasks.transport.memory._store import MessageStore, Stored

__all__ = ("HeldStream",)

_SECONDS = {"Y": 365 * 86_400, "M": 30 * 86_400, "D": 86_400, "h": 3600, "m": 60, "s": 1}
_AGE = re.compile(r"(\d+)([YMDhms])")


@runtime_checkable
class StreamReader(Subscriber, Protocol):
    """A consumer of a stream. Called with the broker's lock held."""

    offset: int
    """Of the message that it gets next."""


class HeldStream(HeldQueue):
    """Not thread-safe: the broker's lock guards it. Messages leave by age and by size, one by one."""

    def __init__(self, declared: Queue, store: MessageStore, now: float) -> None:
        super().__init__(declared, store, now)
        self._log: deque[tuple[float, Stored]] = deque()
        self._first = self._bytes = 0
        age = _AGE.fullmatch(str(declared.arguments.get("x-max-age", "")))
        self._max_age = int(age[1]) * _SECONDS[age[2]] if age else None

    @property
    def _end(self) -> int:
        return self._first + len(self._log)

    def append(self, message: Stored, now: float) -> None:
        """Add a message; it gets its offset."""
        headers = {**message.properties.headers, OFFSET: self._end}
        message.properties = replace(message.properties, headers=headers)
        self._log.append((now, message))
        self._bytes += len(message.body)
        self._drop_old(now)

    def place_of(self, wanted: object) -> int:
        """The offset that `x-stream-offset` means now.

        Raises:
            ValueError: a time, or something else that is not known here.
        """
        if wanted == "first":
            return self._first
        if wanted in {"next", None}:
            return self._end
        if wanted == "last":
            return max(self._first, self._end - 1)
        if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0:
            return wanted
        raise ValueError(
            f"x-stream-offset is {wanted!r}: memory:// knows 'first', 'last', 'next' and numbers"
        )

    def serve(self) -> None:
        """Hand out what readers have not had, as far as they have room."""
        for subscriber in tuple(self.subscribers):
            assert isinstance(subscriber, StreamReader)
            subscriber.offset = max(subscriber.offset, self._first)
            for _, message in tuple(islice(self._log, subscriber.offset - self._first, None)):
                if not subscriber.has_room():
                    break
                subscriber.offset += 1
                subscriber.hand(message)

    def _drop_old(self, now: float) -> None:
        limit = self.declared.max_length_bytes
        while len(self._log) > 1:
            written, message = self._log[0]
            is_old = self._max_age is not None and now - written > self._max_age
            if not is_old and (limit is None or self._bytes <= limit):
                return
            self._log.popleft()
            self._first += 1
            self._bytes -= len(message.body)
