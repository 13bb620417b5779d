"""Sending what follows a task: each message and each end is handed over until it has an answer that counts.

| answer | rule |
|---|---|
| confirmed | done |
| a join's queue, or a reply queue, is gone | done: the join has ended before, nobody waits for the result |
| a message that the broker refuses for good (`NotSent.is_final`) | what is to be published instead is |
| an end that its reply queue refuses, also after a pause | given up and logged, as results are |
| an end that cannot be written | given up and logged |
| anything else (no connection, an alarm, a full queue) | not yet: handed over again later, or told to who sends once |

Nothing is handed over again once the worker closes: the delivery that it follows is unacked, and its redelivery does it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from amqp_tasks.errors import (
    AmqpTasksError,
    BrokerConnectionError,
    EncodeError,
    MessageTooLarge,
    NotSent,
    PublishNacked,
    UnroutableError,
)
from amqp_tasks.message import is_for_join, printable

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.message import OutgoingMessage, ResultRecord
    from amqp_tasks.worker._steps import Instead, Steps

__all__ = ("Closing", "Sending")

logger = logging.getLogger(__name__)

Report: TypeAlias = "Callable[[Exception | None], None]"
_Part: TypeAlias = "Callable[[Report], None]"
"""Hands something over; its report is called once, with None when there is nothing left to do about it."""
Made = TypeVar("Made")

_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0
_NACKED_PAUSE = 1.0
_ONCE_WITHIN = 60.0
"""Seconds; above what the publisher itself gives a message, and an end that is refused."""


class Closing(Exception):
    """The worker closes, so what follows a task is not sent any more; what is open is delivered again."""


@dataclass(eq=False)
class _Refused(Exception):
    """The broker refuses a message for good; `make` gives what is published instead, and may wait for the broker."""

    make: Callable[[], Steps]


class Sending:
    """Thread safety: any thread. Reports come on the I/O thread.

    Args:
        app: whose broker it is.
        call_later: runs something on the control thread after some seconds.
        aside: runs something on a thread that may wait for the broker.
    """

    def __init__(
        self,
        app: App,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        aside: Callable[[Callable[[], None]], None],
    ) -> None:
        self._app, self._call_later, self._aside = app, call_later, aside
        self._closing = threading.Event()

    def close(self) -> None:
        """Hand nothing over again, and let who waits for the broker go; idempotent."""
        self._closing.set()

    def send(self, steps: Steps, then: Callable[[], None]) -> None:
        """Have all of it sent, however long that takes, then call `then`, once, on some thread; returns at once."""
        parts = list(self._parts(steps))
        if not parts:
            then()
            return
        count = _Countdown(len(parts), then)
        for part in parts:
            self._keep_at_it(steps, part, count.down, _FIRST_PAUSE)

    def send_once(self, steps: Steps) -> None:
        """Send all of it and wait.

        Raises:
            AmqpTasksError: something of it is not sent yet.
        """
        reports: SimpleQueue[Exception | None] = SimpleQueue()
        waiting = self._hand_over(steps, reports.put)
        deadline = time.monotonic() + _ONCE_WITHIN
        while waiting:
            try:
                error = reports.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty as exc:
                raise AmqpTasksError(
                    f"what follows in a workflow has no answer within {_ONCE_WITHIN:g} s"
                ) from exc
            waiting -= 1
            if isinstance(error, _Refused):
                waiting += self._hand_over(_added(steps, error.make()), reports.put)
            elif error is not None:
                raise error

    def _hand_over(self, steps: Steps, report: Report) -> int:
        parts = list(self._parts(steps))
        for part in parts:
            part(report)
        return len(parts)

    def until_broker_is_back(self, make: Callable[[], Made]) -> Made:
        """What `make` gives, which may have to ask the broker.

        The caller waits: its task has run, and nothing else of this process could be settled either.

        Raises:
            Closing: the worker closes first.
        """
        seconds = _FIRST_PAUSE
        while True:
            try:
                return make()
            except BrokerConnectionError as exc:
                logger.warning(
                    "what follows a task cannot be sent yet, trying again in %.1f s: %s", seconds, exc,
                    extra={"action": "publish_again"},
                )  # fmt: skip
            if self._closing.wait(seconds):
                raise Closing
            seconds = min(_MAX_PAUSE, seconds * 2)

    def _keep_at_it(self, steps: Steps, part: _Part, done: Callable[[], None], pause: float) -> None:
        def report(error: Exception | None) -> None:
            if error is None:
                done()
            elif isinstance(error, _Refused):
                self._aside(partial(self._send_instead, steps, error, done))
            elif not self._closing.is_set():
                logger.warning(
                    "a part of a workflow is not sent yet, trying again in %.1f s: %s", pause, error,
                    extra={"action": "publish_again"},
                )  # fmt: skip
                again = partial(self._keep_at_it, steps, part, done, min(_MAX_PAUSE, pause * 2))
                self._call_later(pause, again)

        part(report)

    def _send_instead(self, steps: Steps, refused: _Refused, done: Callable[[], None]) -> None:
        with suppress(Closing):
            self.send(_added(steps, self.until_broker_is_back(refused.make)), done)

    def _parts(self, steps: Steps) -> Iterator[_Part]:
        for at, message in enumerate(steps.messages):
            yield partial(self._publish, message, steps.instead.get(at))
        for record, reply_to in steps.records:
            yield partial(self._store, record, reply_to, False)

    def _publish(self, message: OutgoingMessage, instead: Instead | None, report: Report) -> None:
        def published(error: Exception | None) -> None:
            if isinstance(error, UnroutableError) and is_for_join(message):
                report(None)
            elif instead is not None and isinstance(error, NotSent) and error.is_final:
                report(_Refused(partial(instead, error)))
            else:
                report(error)

        try:
            self._app.transport.publish_nowait(message, published)
        except Exception as exc:  # noqa: BLE001 - kept and tried again
            report(exc)

    def _store(self, record: ResultRecord, reply_to: str, was_nacked: bool, report: Report) -> None:
        def stored(error: Exception | None) -> None:
            if isinstance(error, UnroutableError):
                report(None)
            elif isinstance(error, PublishNacked) and self._closing.is_set():
                report(error)
            elif isinstance(error, PublishNacked) and not was_nacked:
                self._call_later(_NACKED_PAUSE, partial(self._store, record, reply_to, True, report))
            elif isinstance(error, PublishNacked | MessageTooLarge | EncodeError):
                logger.error(
                    "the end of task %s is told to nobody: %s", printable(record.task_id), error,
                    extra={"action": "result_given_up", "task_id": record.task_id},
                )  # fmt: skip
                report(None)
            else:
                report(error)

        try:
            self._app.backend.store_nowait(
                record, reply_to=reply_to, correlation_id=record.task_id, on_stored=stored
            )
        except Exception as exc:  # noqa: BLE001 - kept and tried again
            stored(exc)


def _added(steps: Steps, instead: Steps) -> Steps:
    """What is published instead of a part; the joins that it tells are looked at with the others."""
    steps.joins += instead.joins
    return instead


class _Countdown:
    """Calls `then` when as many things have happened as it waits for. Thread safety: any thread."""

    def __init__(self, waits: int, then: Callable[[], None]) -> None:
        self._waits, self._then = waits, then
        self._lock = threading.Lock()

    def down(self) -> None:
        with self._lock:
            self._waits -= 1
            is_last = self._waits == 0
        if is_last:
            self._then()
