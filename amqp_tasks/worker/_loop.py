"""A loop that waits for sockets, timers and calls from other threads: the supervisor's, and each control thread's.

Anything a node must do beside running tasks registers a reader or a timer here; callbacks must not block.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from amqp_tasks.clock import SYSTEM_CLOCK, Clock

__all__ = ("Loop", "Timer")

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0


@dataclass(slots=True, order=True)
class Timer:
    """A call to come."""

    due: float
    serial: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Never call it; idempotent."""
        self.callback = None


class Loop:
    """Life: 1. made by any thread; 2. `run` in the thread that owns it; 3. `stop` ends `run`; 4. `close`.

    Thread safety: `call_soon`, `call_later` and `stop` from any thread; the rest by the owner only.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self._timers_lock = threading.Lock()
        self._serial = itertools.count()
        self._is_running = True
        self._wake_read, self.wake_fd = os.pipe()
        for fd in (self._wake_read, self.wake_fd):
            os.set_blocking(fd, False)
        self._on_wake_bytes: Callable[[bytes], None] | None = None
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)

    def on_wake_bytes(self, callback: Callable[[bytes], None]) -> None:
        """Hand over the bytes that arrive at `wake_fd`: with `signal.set_wakeup_fd`, signal numbers (0 is our own)."""
        self._on_wake_bytes = callback

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def remove_reader(self, fd: int) -> None:
        """Stop watching; unknown ones are fine."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it in the loop's thread."""
        self._calls.append(callback)
        self._wake()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call it in the loop's thread after `delay` seconds."""
        timer = Timer(self.clock.monotonic() + delay, next(self._serial), callback)
        with self._timers_lock:
            heapq.heappush(self._timers, timer)
            is_first = self._timers[0] is timer
        if is_first:
            self._wake()
        return timer

    def run(self) -> None:
        """Serve until `stop`."""
        while self._is_running:
            for key, _ in self._selector.select(self._next_wait()):
                self._guarded(key.data)
            for _ in range(len(self._calls)):
                self._guarded(self._calls.popleft())
            self._run_due()

    def stop(self) -> None:
        """Let `run` return."""
        self._is_running = False
        self._wake()

    def close(self) -> None:
        """Release the descriptors; idempotent."""
        if self.wake_fd >= 0:
            write, self.wake_fd = self.wake_fd, -1
            for close in (self._selector.close, partial(os.close, self._wake_read), partial(os.close, write)):
                with contextlib.suppress(OSError):  # a task in this process may have closed all there is
                    close()

    def _wake(self) -> None:
        try:
            os.write(self.wake_fd, b"\0")
        except (BlockingIOError, OSError):
            # Full: it wakes anyway. Closed: nobody is left to wake.
            return

    def _drain_wake(self) -> None:
        received = os.read(self._wake_read, 4096)
        if self._on_wake_bytes and (signals := received.replace(b"\0", b"")):
            self._on_wake_bytes(signals)

    def _next_wait(self) -> float:
        if self._calls:
            return 0.0
        with self._timers_lock:
            if not self._timers:
                return _LONGEST_WAIT
            return min(_LONGEST_WAIT, max(0.0, self._timers[0].due - self.clock.monotonic()))

    def _run_due(self) -> None:
        now = self.clock.monotonic()
        while True:
            with self._timers_lock:
                if not self._timers or self._timers[0].due > now:
                    return
                callback = heapq.heappop(self._timers).callback
            if callback is not None:
                self._guarded(callback)

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            # One failed callback must not end what keeps the node alive.
            logger.exception("unexpected error in %r", callback, extra={"action": "loop_error"})
