"""A worker process as its supervisor sees it, and how long to wait before it gets a successor."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from amqp_tasks.transport import ConsumedQueues
from amqp_tasks.worker._health import Standing
from amqp_tasks.worker._limits import KILL_AFTER, OVERDUE_GRACE
from amqp_tasks.worker._link import Link, LinkClosed, Message
from amqp_tasks.worker._pulse import Pulse, processor_seconds
from amqp_tasks.worker._template import STDERR_FD

__all__ = ("ChildProcess", "Restarts")

logger = logging.getLogger(__name__)

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0
SOON = 1.0
"""Seconds: a process that dies sooner, by no task's doing, would die again at once."""


@dataclass(slots=True, kw_only=True)
class ChildProcess:
    """Written and read by the supervisor's loop only.

    Attributes:
        serial: unique in the node's life.
        index: its place in the table of records.
        link: our end.
        started: monotonic time of the order to fork it.
        pid: 0 until it is forked.
        is_up: it has said something.
        is_consuming: it has its consumers now.
        was_ready: it once had.
        standing: which queues it consumes, and which it should.
        is_recycling: it ends by itself and wants a successor.
        is_killed: by us, or it ended itself when its time to stop was over; nobody is charged for it.
        has_crashed: a task ended it.
        terminating_since: monotonic time since when it runs what is to be terminated; 0: it does not.
        error: why it cannot consume.
        pulse: its signs of life.
    """

    serial: int
    index: int
    link: Link
    started: float
    pid: int = 0
    is_up: bool = False
    is_consuming: bool = False
    was_ready: bool = False
    standing: Standing = field(init=False)
    is_recycling: bool = False
    is_killed: bool = False
    has_crashed: bool = False
    terminating_since: float = 0.0
    error: str = ""
    pulse: Pulse = field(init=False)

    def __post_init__(self) -> None:
        self.pulse = Pulse(lambda: processor_seconds(self.pid))
        self.standing = Standing(self.started)

    def was_of_use(self, now: float) -> bool:
        """Whether its successor may start at once; else starting and dying could go round without a pause."""
        if self.is_recycling or self.has_crashed:
            return True
        return self.was_ready and not self.error and now - self.started >= SOON

    def is_late_to_terminate(self, now: float, *, is_wanted: bool) -> bool:
        """Whether it should have ended a task long ago; to be asked now and then, with whether it runs such a task.

        It is given more time when it has begun to end: it stores the outcome, and lets the task clean up.
        """
        self.terminating_since = (self.terminating_since or now) if is_wanted else 0.0
        limit = KILL_AFTER + 2 * OVERDUE_GRACE if self.is_recycling else KILL_AFTER
        return is_wanted and now - self.terminating_since >= limit

    def send(self, message: Message) -> None:
        """Tell it something; nothing happens when it does not listen."""
        try:
            self.link.send(message)
        except LinkClosed:
            # It is dying (its exit will be reported) or hangs; the stop's deadline sees to the latter.
            logger.debug("process %d does not listen", self.pid, extra={"action": "deaf"})

    def last_words(self) -> Iterator[Message]:
        """What it said last may still lie there, e.g. which tasks were finished."""
        with contextlib.suppress(LinkClosed):
            self.link.socket.setblocking(False)
            while True:
                for message in self.link.receive():
                    self.note(message)
                    yield message

    def note(self, message: Message) -> None:
        """Keep what a message says of the process itself."""
        if message["kind"] == "recycling":
            self.is_recycling = True
        elif message["kind"] == "unfinished":
            self.is_killed = True
        elif message["kind"] == "consumer" and message["state"] == "consuming":
            self.was_ready = True
        elif message["kind"] == "queues":
            names = {key: tuple(message[key]) for key in ("consumed", "missing", "absent")}
            self.standing.take(ConsumedQueues(**names))
        elif message["kind"] == "consumer" and message["state"] == "failed":
            self.error = message["error"]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it exists."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def dump_stacks(self) -> None:
        """Have it print its stacks to stderr, below a line that says whose they are."""
        if self.pid:
            with contextlib.suppress(OSError):  # stderr may be closed
                os.write(STDERR_FD, f"\nWorker-{self.serial}, process {self.pid}:\n".encode())
            self.signal(signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL; no task is charged for that."""
        self.is_killed = True
        self.signal(signal.SIGKILL)


class Restarts:
    """Growing pauses before the successors of processes that were of no use."""

    def __init__(self) -> None:
        self._failures = 0

    def next_pause(self) -> float:
        """Seconds to wait before the next one."""
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return pause

    def reset(self) -> None:
        """A process was of use."""
        self._failures = 0
