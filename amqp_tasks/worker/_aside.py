"""A thread beside those that must not wait: it begins with the first thing that is put to it, and ends when it is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ("Aside",)

T = TypeVar("T")


class Aside(Generic[T]):
    """Thread safety: any thread.

    Args:
        name: of the thread.
        work: what it does: take from `todo` until `closing` is set. None wakes it and is nothing to do.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name, self._work = name, work
        self.todo: SimpleQueue[T | None] = SimpleQueue()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything was put to it."""
        return self._thread is not None

    def put(self, item: T | None) -> None:
        """Have something done; returns at once."""
        self.todo.put(item)
        with self._lock:
            if self._thread is None and not self.closing.is_set():
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def close(self, *, timeout: float) -> None:
        """Begin nothing more, and wait for what is being done."""
        self.closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            self.todo.put(None)
            thread.join(timeout)
