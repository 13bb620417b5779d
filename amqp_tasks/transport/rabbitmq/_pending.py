"""A message on its way, and those who wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from amqp_tasks.clock import Clock
from amqp_tasks.errors import PublishError
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport._delay import WheelEntry
from amqp_tasks.transport.rabbitmq._loop import Waiter

__all__ = ("BatchOutcomes", "CallbackOutcome", "DelayedAhead", "OutcomeSink", "Pending", "SingleOutcome")

LOGGER = logging.getLogger(__name__)


class OutcomeSink(Protocol):
    """Where the outcome of a message goes; called once per message, on the I/O thread."""

    def done(self, index: int, error: PublishError | None) -> None:
        """`None` = confirmed."""
        ...


class Pending:
    """One message. Made by any thread, then written and read on the I/O thread only."""

    __slots__ = (
        "deadline",
        "entry",
        "head",
        "index",
        "is_done",
        "is_nacked",
        "is_repaired",
        "maybe_stored",
        "message",
        "nacks",
        "number",
        "returned",
        "sink",
        "writes",
    )

    def __init__(
        self,
        message: OutgoingMessage,
        head: bytes,
        deadline: float,
        sink: OutcomeSink,
        index: int = 0,
        entry: WheelEntry | None = None,
    ) -> None:
        self.message, self.head, self.deadline, self.sink, self.index = message, head, deadline, sink, index
        self.entry = entry  # set when the message goes into the timer wheel first
        self.writes = 0
        self.number = 0  # which it was of all that were written
        self.maybe_stored = False  # a former writing may have reached the broker's disk
        self.nacks = 0  # how often the broker refused it
        self.is_nacked = False  # …just now; it waits for the next try
        self.returned = ""  # the broker's reason, once a basic.return was matched
        self.is_repaired = False
        self.is_done = False

    @property
    def message_id(self) -> str:
        """What errors call the message: its correlation id, else its message id."""
        properties = self.message.properties
        return properties.correlation_id or properties.message_id or ""

    def finish(self, error: PublishError | None) -> None:
        """Tell the outcome; only the first call counts."""
        if self.is_done:
            return
        self.is_done = True
        if error is not None:
            message, entry = self.message, self.entry
            exchange, key = entry.target if entry is not None else (message.exchange, message.routing_key)
            error.about(exchange=exchange, routing_key=key, message_id=self.message_id)
        self.sink.done(self.index, error)


class SingleOutcome:
    """For `publish`."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter = Waiter()

    def done(self, index: int, error: PublishError | None) -> None:
        """See `OutcomeSink.done`."""
        self.waiter.succeed(error)


class CallbackOutcome:
    """For `publish_nowait`."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[PublishError | None], None]) -> None:
        self.callback = callback

    def done(self, index: int, error: PublishError | None) -> None:
        """See `OutcomeSink.done`."""
        try:
            self.callback(error)
        except BaseException:
            # It is called while confirms are read, and deadlines looked at: an error from here would break that off.
            LOGGER.exception("on_outcome raised", extra={"action": "callback_error"})


class DelayedAhead:
    """For `publish_many`: the delayed messages that may be on their way. The caller's thread.

    Their wait in the broker's queues begins when they are there: what lies before that is lateness.

    Args:
        batch: tells how many are there.
        seconds: that one may be on its way before no other follows it.
        clock: monotonic time.
    """

    def __init__(self, batch: BatchOutcomes, *, seconds: float, clock: Clock) -> None:
        self._batch, self._seconds, self._clock = batch, seconds, clock
        # How many messages had been taken with each, and when.
        self._taken = deque[tuple[int, float]]()

    def add(self, taken: int) -> tuple[int, int] | None:
        """The last of so many has a delay. If one is on its way for too long: its own count, and the one to wait for."""
        now = self._clock.monotonic()
        self._taken.append((taken, now))
        while self._taken[0][0] <= self._batch.finished and len(self._taken) > 1:
            self._taken.popleft()
        oldest, since = self._taken[0]
        if now - since <= self._seconds:
            return None
        return oldest, self._taken[len(self._taken) // 2][0]


class BatchOutcomes:
    """For `publish_many`: outcomes by index, and a wait until few enough are outstanding."""

    def __init__(self) -> None:
        self.outcomes: list[PublishError | None] = []  # grown by the caller, filled by the I/O thread
        self.finished = 0  # written by the I/O thread
        self._wake_at: int | None = None
        self._wake = threading.Event()

    def done(self, index: int, error: PublishError | None) -> None:
        """See `OutcomeSink.done`."""
        if error is not None:
            self.outcomes[index] = error
        self.finished += 1
        wake_at = self._wake_at
        if wake_at is not None and self.finished >= wake_at:
            self._wake.set()

    def count_refused(self, _none: None) -> None:
        """A message that was refused before it was handed over; its outcome is set already. I/O thread."""
        self.done(0, None)

    def wait_for(self, finished: int, timeout: float) -> bool:
        """Wait until `finished` outcomes are known; False when `timeout` seconds passed first."""
        deadline = time.monotonic() + timeout
        self._wake_at = finished
        while True:
            self._wake.clear()
            # `done` may have counted past `finished` before it saw `_wake_at`, and one that is late with its `set` may mean the
            # wait before: only the count says that it is over.
            if self.finished >= finished:
                break
            if not self._wake.wait(max(0.0, deadline - time.monotonic())):
                break
        self._wake_at = None
        return self.finished >= finished
