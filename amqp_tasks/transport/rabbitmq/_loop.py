"""The loop that does all I/O of a transport, turn by turn, and its door for other threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from amqp_tasks.transport.rabbitmq._pika import (
    PikaLoop,
    abandon_poller,
    epoll_of,
    interrupt_poll,
    next_timer,
)

__all__ = ("DoorLoop", "Phase", "Waiter", "call", "guarded")

LOGGER = logging.getLogger(__name__)
MAX_POLL = 5.0
"""Seconds; a backstop."""


class Waiter:
    """The light future of one call: a lock that whoever does the I/O releases. Not reusable."""

    __slots__ = ("error", "gate", "value")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.value: Any = None
        self.error: BaseException | None = None

    def succeed(self, value: Any = None) -> None:
        """Called once, on the I/O thread."""
        self.value = value
        self.gate.release()

    def fail(self, error: BaseException) -> None:
        """Called once instead of `succeed`."""
        self.error = error
        self.gate.release()

    def wait(self, timeout: float) -> bool:
        """Wait for either; False when `timeout` seconds passed first."""
        return self.gate.acquire(timeout=max(0.0, timeout))


class Phase(Enum):
    """What whoever puts something through the door must do about it."""

    AWAKE = "awake"
    """Nothing: a turn is under way, which looks at the door before it ends."""
    POLLING = "polling"
    """Interrupt the poll."""
    FREE = "free"
    """Nobody runs the loop: call for somebody."""
    SHUT = "shut"
    """It will not turn again: do it here and now."""


class DoorLoop(PikaLoop):
    """pika's loop, turn by turn, with a door for other threads and an end of turn.

    It has no thread of its own: `_iothread` says who runs it. `put` costs a deque append while the loop is awake; only a
    loop that may be asleep is woken. The order in `_get_remaining_interval` (declare sleep, then look at the door)
    against that in `put` (append, then look whether asleep) makes a lost wake-up impossible: one of the two always sees
    the other.
    """

    def __init__(self, call_for_somebody: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._call_for_somebody = call_for_somebody
        self._door: deque[tuple[Callable[[Any], None], Any]] = deque()  # written by any thread, read by ours
        self.phase = Phase.AWAKE  # written by whoever runs the loop
        self.is_turning = False  # in the middle of a turn; not while polling
        self.is_stopping = False
        self.is_abandoned = False
        self._is_woken = False  # set by any thread that wakes it, so that the next need not
        self._shut_lock = threading.RLock()
        self._dispatch = self._poller._dispatch_fd_events
        self._poller._dispatch_fd_events = self._on_events
        self._at_end: list[Callable[[], None]] = []
        self._until = float("inf")
        self.readers: dict[
            int, Callable[[], None]
        ] = {}  # by descriptor: reads it, when it is readable and no more

    def put(self, work: Callable[[Any], None], argument: Any = None) -> None:
        """Have `work(argument)` called by whoever runs the loop, in order. Any thread.

        After the loop's end it is called here and now, so that whoever waits hears of the end.
        """
        self._door.append((work, argument))
        phase = self.phase
        if phase is Phase.AWAKE:
            return
        if phase is Phase.POLLING:
            if not self._is_woken:
                self._is_woken = True
                self.wake()
        elif phase is Phase.FREE:
            self._call_for_somebody()
        else:
            self._drain()

    @property
    def has_work(self) -> bool:
        """Whether something stands in the door or at the end of the turn."""
        return bool(self._door or self._at_end)

    def stop(self) -> None:
        """No further turn. Through the door."""
        self.is_stopping = True

    def shut(self) -> None:
        """Do what still stands in the door; the loop has ended."""
        # The phase before the look, and in `put` the append before the phase: one of the two sees the other's work.
        self.phase = Phase.SHUT
        self._drain()

    def _drain(self) -> None:
        with self._shut_lock:
            while self._door:
                work, argument = self._door.popleft()
                guarded(work, argument)

    def wake(self) -> None:
        """Interrupt the poll. Any thread."""
        interrupt_poll(self)

    def at_turn_end(self, work: Callable[[], None]) -> None:
        """Call `work` when everything else of this turn is done. In a turn only; the caller coalesces."""
        self._at_end.append(work)

    def call_guarded(self, delay: float, work: Callable[[], None]) -> Any:
        """`call_later` whose callback cannot end the loop."""
        return self.call_later(max(0.0, delay), lambda: guarded(call, work))

    def turn(self, until: float = float("inf")) -> None:
        """Wait for events, at most until `until` on the monotonic clock, and do all that they lead to.

        An exception while it waits leaves everything as it was; one in the middle of the turn does not.
        """
        self._until = until
        epoll = epoll_of(self)
        if epoll is None:
            self._poller.poll()
        else:
            self._on_epoll(epoll.poll(self._get_remaining_interval()))
        self.finish_turn()

    def finish_turn(self) -> None:
        """A turn without polling: the door, pika's callbacks and timers, then the end of the turn."""
        self.is_turning = True
        self.phase = Phase.AWAKE
        self.process_timeouts()
        self.is_turning = False

    def _on_epoll(self, events: list[tuple[int, int]]) -> None:
        """As pika's poller, but for the most frequent case: one socket is readable, and we know its reader."""
        self.is_turning = True
        self.phase = (
            Phase.AWAKE
        )  # what the handlers put through the door is done in this very turn: no waking
        if len(events) == 1:
            descriptor, event = events[0]
            reader = self.readers.get(descriptor)
            if reader is not None and event == self.READ:
                reader()
                return
        if events:
            self._dispatch(dict(events))

    def _on_events(self, events: Any) -> None:
        self.is_turning = True
        self.phase = Phase.AWAKE
        self._dispatch(events)

    def process_timeouts(self) -> None:
        """See `finish_turn`."""
        door = self._door
        for _ in range(len(door)):
            work, argument = door.popleft()
            guarded(work, argument)
        if self._callbacks or next_timer(self) <= time.monotonic():
            super().process_timeouts()
        while self._at_end:
            ends, self._at_end = self._at_end, []
            for end in ends:
                guarded(call, end)

    def _get_remaining_interval(self) -> float:
        """How long to poll, in seconds."""
        self._is_woken = False
        self.phase = Phase.POLLING
        if self._door or self._at_end or self._callbacks or self.is_stopping:
            return 0.0
        due = min(next_timer(self), self._until)
        return MAX_POLL if due == float("inf") else min(MAX_POLL, max(0.0, due - time.monotonic()))

    def remove_handler(self, fd: int) -> None:
        """See pika; a descriptor that is watched again may be another socket."""
        self.readers.pop(fd, None)
        super().remove_handler(fd)

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        self.is_abandoned = self.is_stopping = True
        abandon_poller(self)


def guarded(work: Callable[[Any], None], argument: Any) -> None:
    """Call it; an error is logged and goes no further."""
    try:
        work(argument)
    except Exception:
        # Nothing that one piece of work does wrong may end the thread that all others wait for.
        LOGGER.exception("unexpected error on the I/O thread", extra={"action": "io_error"})


def call(work: Callable[[], None]) -> None:
    """Call it."""
    work()
