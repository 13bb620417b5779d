"""The I/O thread: one loop, one door.

Life: `start` makes the loop and its thread; other threads `put` work through the door; `stop` ends the loop after the
turn it is in. The thread is not a daemon: one that dies in the middle of a write at the interpreter's end would lose
what it was writing, so `_transport` closes every transport before the interpreter waits for its threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from amqp_tasks.transport.rabbitmq._pika import PikaLoop

__all__ = ("THREAD_NAME", "DoorLoop", "IOThread", "Waiter")

LOGGER = logging.getLogger(__name__)
THREAD_NAME = "amqp-tasks-io"
RESOLVER = "_resolve"  # pika looks names up in a thread of its own, which has no name to know it by

LINGER = 0.001
"""Seconds after which a loop that was given one of many looks for the next."""

T = TypeVar("T")

_PIKA_LOGGERS = (
    "pika.adapters.base_connection",
    "pika.adapters.select_connection",
    "pika.adapters.utils.connection_workflow",
    "pika.adapters.utils.io_services_utils",
    "pika.adapters.utils.selector_ioloop_adapter",
    "pika.callback",
    "pika.channel",
    "pika.connection",
    "pika.heartbeat",
)


class _PikaReports(logging.Filter):
    """Turns what pika reports on an I/O thread of ours into DEBUG records.

    pika logs each failed attempt several times, with tracebacks; we handle those failures and log them once. Other
    threads' use of pika is untouched.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.threadName == THREAD_NAME or record.funcName == RESOLVER
        if is_ours and record.levelno > logging.DEBUG:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            # The level was checked before this filter ran; a handler without a level would still print it.
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


_REPORTS = _PikaReports()


def _quieten_pika() -> None:
    for name in _PIKA_LOGGERS:
        logging.getLogger(name).addFilter(_REPORTS)  # adding the same filter twice does nothing


class Waiter:
    """The light future of one call: a lock that the I/O thread releases. Not reusable."""

    __slots__ = ("_lock", "error", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.value: Any = None
        self.error: BaseException | None = None

    def succeed(self, value: Any = None) -> None:
        """Called once, on the I/O thread."""
        self.value = value
        self._lock.release()

    def fail(self, error: BaseException) -> None:
        """Called once instead of `succeed`."""
        self.error = error
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait for either; False when `timeout` seconds passed first."""
        return self._lock.acquire(timeout=max(0.0, timeout))


class DoorLoop(PikaLoop):
    """pika's loop with a door for other threads and an end of turn.

    `put` costs a deque append while the loop is awake; only a loop that may be asleep is woken. The order in
    `_get_remaining_interval` (declare sleep, then look at the door) against that in `put` (append, then look whether
    asleep) makes a lost wake-up impossible: one of the two always sees the other.

    Waking costs more than what it is for, when one message after the other comes: so after `put_soon` the loop lingers, which
    is to look again by itself after `LINGER`, and what comes meanwhile the same way does not wake it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wake_without_tcp()
        self._door: deque[tuple[Callable[[Any], None], Any]] = deque()  # written by any thread, read by ours
        self._asleep = False
        self._lingers = False  # written by our thread
        self._has_many = False  # set by any thread, cleared by ours; one that is lost costs one waking
        self._is_shut = False  # the loop will not turn again; written once, by `shut`
        self._shut_lock = threading.RLock()
        self._dispatch = self._poller._dispatch_fd_events
        self._poller._dispatch_fd_events = self._on_events
        self._at_end: list[Callable[[], None]] = []

    def _wake_without_tcp(self) -> None:
        """Exchange pika's pair of TCP sockets, which takes two ports, and the TCP stack's time for each waking."""
        poller = self._poller
        poller.remove_handler(poller._r_interrupt.fileno())
        poller._r_interrupt.close()
        poller._w_interrupt.close()
        ends = poller._r_interrupt, poller._w_interrupt = socket.socketpair()
        for end in ends:
            end.setblocking(False)
        poller.add_handler(ends[0].fileno(), poller._read_interrupt, self.READ)

    def put(self, work: Callable[[Any], None], argument: Any = None) -> None:
        """Have `work(argument)` called on the loop's thread, in order. Any thread.

        After the loop's end it is called here and now, so that whoever waits hears of the end.
        """
        self._door.append((work, argument))
        if self._is_shut:
            self._drain()
        else:
            self.rouse()

    def put_soon(self, work: Callable[[Any], None], argument: Any = None) -> None:
        """The same for one of many, which may wait for `LINGER`, or until `rouse`. Any thread."""
        self._has_many = True
        self._door.append((work, argument))
        if self._is_shut:
            self._drain()
        elif not self._lingers:
            self.rouse()

    def rouse(self) -> None:
        """End the loop's sleep. Any thread."""
        if self._asleep:
            self._asleep = False
            self.wake()

    def shut(self) -> None:
        """Do what still stands in the door; the loop has ended."""
        # The flag before the look, and in `put` the append before the flag: one of the two sees the other's work.
        self._is_shut = True
        self._drain()

    def _drain(self) -> None:
        with self._shut_lock:
            while self._door:
                work, argument = self._door.popleft()
                _guarded(work, argument)

    def wake(self) -> None:
        """Interrupt the poll. Any thread."""
        # Not pika's wake_threadsafe: its lock would dead-lock with a signal handler that publishes. A full pipe wakes
        # as well, and a loop that has closed needs no waking.
        with contextlib.suppress(OSError, AttributeError):
            self._poller._w_interrupt.send(b"X")

    def at_turn_end(self, work: Callable[[], None]) -> None:
        """Call `work` when everything else of this turn is done. Owner thread only; the caller coalesces."""
        self._at_end.append(work)

    def call_guarded(self, delay: float, work: Callable[[], None]) -> Any:
        """`call_later` whose callback cannot end the loop."""
        return self.call_later(max(0.0, delay), lambda: _guarded(_call, work))

    def _on_events(self, events: Any) -> None:
        self._asleep = False  # what the handlers put through the door is done in this very turn: no waking
        self._dispatch(events)

    def process_timeouts(self) -> None:
        """One turn after the poll: the door, pika's callbacks and timers, then the end of the turn."""
        self._asleep = False
        door = self._door
        for _ in range(len(door)):
            work, argument = door.popleft()
            _guarded(work, argument)
        super().process_timeouts()
        while self._at_end:
            ends, self._at_end = self._at_end, []
            for end in ends:
                _guarded(_call, end)

    def _get_remaining_interval(self) -> float | None:
        self._lingers, self._has_many = self._has_many, False
        self._asleep = True
        if self._door or self._at_end:
            return 0
        interval = super()._get_remaining_interval()
        return interval if not self._lingers else LINGER if interval is None else min(interval, LINGER)

    def abandon(self) -> None:
        """In a forked child: close the descriptors without touching what they share with the parent."""
        poller = self._poller
        poll = getattr(poller, "_poll", None)
        close = getattr(poll, "close", None)
        if close is not None:
            # Unregistering would change the parent's epoll set; closing our copy of the descriptor does not.
            close()
        poller._poll = None
        for end in (poller._r_interrupt, poller._w_interrupt):
            if end is not None:
                close_descriptor(end)
        poller._r_interrupt = poller._w_interrupt = None


def close_descriptor(sock: Any) -> None:
    """Close a socket's descriptor only: no shutdown, no TLS goodbye, nothing on the wire."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


def _guarded(work: Callable[[Any], None], argument: Any) -> None:
    try:
        work(argument)
    except BaseException:
        # Nothing that one piece of work does wrong, not even an exit, may end the thread that all others wait for.
        LOGGER.exception("unexpected error on the I/O thread", extra={"action": "io_error"})


def _call(work: Callable[[], None]) -> None:
    work()


class IOThread:
    """Owns the loop and its thread."""

    def __init__(self) -> None:
        self.loop = DoorLoop()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=False)
        self._on_end: Callable[[bool], None] | None = None

    def start(self, on_end: Callable[[bool], None]) -> None:
        """Start the thread; `on_end(by_error)` is called on it when the loop has ended."""
        _quieten_pika()
        self._on_end = on_end
        self._thread.start()

    def _run(self) -> None:
        by_error = True
        try:
            self.loop.start()
            by_error = False
        except BaseException:  # SystemExit too: the thread must not end without a word to those who wait
            LOGGER.critical("the I/O loop ended by an error", exc_info=True, extra={"action": "io_death"})
        if self._on_end is not None:
            _guarded(self._on_end, by_error)
        self.loop.shut()
        with contextlib.suppress(Exception):
            self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        # Not the ident alone: that of a thread that has ended is given to another.
        return threading.get_ident() == self._thread.ident and self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """End the loop and wait for the thread up to `timeout` seconds."""
        self.loop.put(lambda _none: self.loop.stop())
        if not self.is_current:
            self._thread.join(max(0.0, timeout))
