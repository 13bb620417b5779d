"""What a node tells other nodes by the journal, and how long it waits until that is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.app._journal import JournalWriter
    from amqp_tasks.errors import AmqpTasksError
    from amqp_tasks.worker._loop import Loop, Timer

__all__ = ("News",)

logger = logging.getLogger(__name__)

LIMIT = 2.0
"""Seconds after which whoever waits goes on: the entry follows when the broker takes it, or is given up at last."""


def _nobody_waits() -> None:
    pass


class News:
    """Life of an entry: 1. `add`; 2. `send` publishes all that were added; 3. they are confirmed, or `LIMIT` is over.

    Thread safety: the owner's loop only.

    Args:
        writer: adds to the journal; None: there is nobody to tell.
        loop: of the owner.
    """

    def __init__(self, writer: JournalWriter | None, loop: Loop) -> None:
        self._writer, self._loop = writer, loop
        self._added: list[tuple[str, str, dict[str, Any]]] = []
        self._has_warned = False

    def add(self, kind: str, entry_id: str, facts: dict[str, Any]) -> None:
        """Have something told with the next `send`."""
        self._added.append((kind, entry_id, facts))

    def send(self, then: Callable[[], None] = _nobody_waits) -> None:
        """Tell what was added; call `then` once it is told, at once when it is nothing, and at the latest after `LIMIT`."""
        added, self._added = self._added, []
        if self._writer is None or not added:
            then()
            return
        waiting = _Waiting(len(added), then)
        waiting.timer = self._loop.call_later(LIMIT, waiting.end)
        for kind, entry_id, facts in added:
            entry = self._writer.entry(kind, facts, entry_id=entry_id)
            try:
                self._writer.write_nowait(entry, partial(self._outcome, waiting))
            except Exception as exc:  # noqa: BLE001 - a closed transport, say: the supervisor goes on
                self._count(waiting, exc)

    def send_last(self) -> None:
        """Tell what was added before the loop ends; returns when it is told, or after `LIMIT`.

        What the broker has not taken by then is not taken back: where the transport lives on, what was told before may still go out,
        and this has to follow it.
        """
        added, self._added = self._added, []
        if self._writer is None or not added:
            return
        told: SimpleQueue[Exception | None] = SimpleQueue()
        for kind, entry_id, facts in added:
            try:
                self._writer.write_nowait(self._writer.entry(kind, facts, entry_id=entry_id), told.put)
            except Exception as exc:  # noqa: BLE001 - as in `send`: the end goes on
                told.put(exc)
        deadline = time.monotonic() + LIMIT
        for _ in added:
            try:
                error = told.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                self._warn(TimeoutError(f"the broker has not confirmed it within {LIMIT:g} s"))
                return
            if error is not None:
                self._warn(error)

    def _outcome(self, waiting: _Waiting, error: AmqpTasksError | None) -> None:
        """On the I/O thread."""
        self._loop.call_soon(partial(self._count, waiting, error))

    def _count(self, waiting: _Waiting, error: Exception | None) -> None:
        if error is not None:
            self._warn(error)
        waiting.left -= 1
        if not waiting.left:
            waiting.end()

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "other nodes are not told what happened to processes of this one: %s", printable(f"{error}", 512),
                extra={"action": "journal"},
            )  # fmt: skip


class _Waiting:
    """Somebody who goes on once, when all is told or the time is up."""

    def __init__(self, left: int, then: Callable[[], None]) -> None:
        self.left = left
        self._then: Callable[[], None] | None = then
        self.timer: Timer | None = None

    def end(self) -> None:
        """Go on; idempotent."""
        then, self._then = self._then, None
        if self.timer is not None:
            self.timer.cancel()
        if then is not None:
            then()
