"""Closing a publishing connection that is not used; see `docs/explanation/connections.md`, "A connection that is not used"."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.transport.rabbitmq._connection import Link
from amqp_tasks.transport.rabbitmq._publisher import Publisher

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
    from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("LOOKS", "IdleWatch")

logger = logging.getLogger(__name__)

LOOKS = 4
"""Looks in the time after which a connection is closed: it stays at most a look longer. A use costs nothing."""


class IdleWatch:
    """Life: 1. `begin` with each new connection; 2. looks now and then, until the connection is closed, by this or otherwise.

    Owner thread only.

    Args:
        timeout: seconds without use; None: nothing is ever closed.
        loop: for the looks.
        link: its connection is closed.
        publisher: says whether it is used for messages.
        operations: how many of the other uses there were so far.
        is_needed: whether somebody needs it without using it.
        clock: time.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        loop: DoorLoop,
        link: Link,
        publisher: Publisher,
        operations: Callable[[], int],
        is_needed: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._timeout, self._loop, self._clock = timeout, loop, clock
        self._link, self._publisher = link, publisher
        self._operations, self._is_needed = operations, is_needed
        self._uses, self._used_at = 0, 0.0

    def begin(self, connection: FastConnection) -> None:
        """A connection was opened."""
        if self._timeout is not None:
            self._used_at = self._clock.monotonic()
            self._look_later(connection, self._timeout)

    def _look_later(self, connection: FastConnection, timeout: float) -> None:
        self._loop.call_guarded(timeout / LOOKS, partial(self._look, connection, timeout))

    def _look(self, connection: FastConnection, timeout: float) -> None:
        if connection is not self._link.connection:
            return
        now, counters = self._clock.monotonic(), self._publisher.counters
        uses = counters.published + counters.resent + self._operations()
        if uses != self._uses:
            self._uses, self._used_at = uses, now
        if now - self._used_at < timeout or not self.rest():
            self._look_later(connection, timeout)

    def rest(self) -> bool:
        """Close the connection, unless somebody needs it."""
        connection = self._link.connection
        is_there = connection is not None and connection.is_open
        if not is_there or self._is_needed() or not self._publisher.is_unused:
            return False
        logger.debug("the connection is closed, as it was not used", extra={"action": "idle"})
        self._publisher.rest()
        self._link.rest()
        return True
