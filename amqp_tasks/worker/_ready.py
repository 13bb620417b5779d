"""Deliveries that passed the guards and wait for a slot, in the order in which they are to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ("ReadyBuffer",)

T = TypeVar("T")


class ReadyBuffer(Generic[T]):
    """A heap: higher priority first; within one priority queues take turns in proportion to their weights.

    Turns are by stride: each item gets a tag one stride (1/weight) behind its queue's last one, and the smallest tag is
    next. A queue that was empty joins at the present, so it cannot save up turns, and no queue starves.

    Bounded by the prefetch: the broker sends no more than that. Thread safety: none; its owner has the lock.

    Args:
        weights: `worker_queue_weights`; queues not named weigh 1.
    """

    __slots__ = ("_arrivals", "_heap", "_last_tags", "_now", "_strides")

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._strides = {name: 1.0 / weight for name, weight in (weights or {}).items()}
        self._heap: list[tuple[int, float, int, T]] = []
        self._last_tags: dict[str, float] = {}
        self._now = 0.0
        self._arrivals = 0

    def push(self, item: T, *, priority: int, queue_name: str) -> None:
        """Add an item that came from a queue."""
        tag = max(self._last_tags.get(queue_name, 0.0), self._now) + self._strides.get(queue_name, 1.0)
        self._last_tags[queue_name] = tag
        # The arrival number is unique, so items themselves are never compared.
        self._arrivals += 1
        heappush(self._heap, (-priority, tag, self._arrivals, item))

    def pop(self) -> T:
        """Take the next.

        Raises:
            IndexError: empty.
        """
        _, tag, _, item = heappop(self._heap)
        if not self._heap:
            # Nobody waits, so nobody is owed a turn; and the numbers stay small.
            self._last_tags.clear()
            self._now = 0.0
        elif tag > self._now:
            self._now = tag
        return item

    def drain(self) -> list[T]:
        """Take all, in order."""
        return [self.pop() for _ in range(len(self._heap))]

    def remove_if(self, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Remove those for which it is true and return them; the order of the others stays."""
        removed = [entry[3] for entry in self._heap if is_unwanted(entry[3])]
        self._heap = [entry for entry in self._heap if not is_unwanted(entry[3])]
        heapify(self._heap)
        return removed

    def __len__(self) -> int:
        return len(self._heap)
