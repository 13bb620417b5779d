"""What is to be let go of at the end, by whichever thread opened it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ("Releases",)


class Releases:
    """Thread safety: any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        self._is_over = False

    def add(self, release: Callable[[], None]) -> None:
        """Have something released at the end; at once, when that has come while a helper thread was preparing."""
        with self._lock:
            if not self._is_over:
                self._waiting.append(release)
                return
        release()

    def release(self) -> None:
        """Release everything, what was added last first; again does nothing more."""
        with self._lock:
            self._is_over = True
            releases, self._waiting = self._waiting, []
        for release in reversed(releases):
            release()
