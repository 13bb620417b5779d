"""The I/O thread of a memory transport: it runs callbacks, and lets messages expire in time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ("CallbackThread",)

LOGGER = logging.getLogger(__name__)


class CallbackThread:
    """Runs what is put, in order, until stopped; what was put before `stop` still runs.

    `next_due` tells in how many seconds `on_due` wants to be called (None: not at all). Whoever makes that earlier
    calls `put` as well.
    """

    def __init__(self, next_due: Callable[[], float | None], on_due: Callable[[], None]) -> None:
        self._next_due, self._on_due = next_due, on_due
        self._changed = threading.Condition()
        self._work: deque[Callable[[], None]] = deque()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="amqp-tasks memory I/O", daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def put(self, work: Callable[[], None]) -> None:
        """Have `work` run on the thread. Any thread."""
        with self._changed:
            self._work.append(work)
            self._changed.notify()

    def stop(self, timeout: float) -> None:
        """End after what was put so far; waits up to `timeout` seconds unless called on the thread itself."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if not self.is_current:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._guarded(self._on_due)
            # Asked before the lock is taken: the broker puts work while it holds its own lock. A deadline that is set
            # in between comes with a `put`, so that this wait does not outlast it.
            timeout = self._next_due()
            with self._changed:
                if not self._work and not self._is_stopping:
                    self._changed.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
                if not self._work and self._is_stopping:
                    return
                work, self._work = self._work, deque()
            for each in work:
                self._guarded(each)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:  # as in the I/O loop of RabbitMQ: an exit, too, is the callback's own
            LOGGER.exception("a callback raised", extra={"action": "callback_error"})
