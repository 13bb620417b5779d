"""The connection that a brief consumer has left to the next one.

See `docs/explanation/connections.md`, "A connection that is handed on", for its states and what ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from amqp_tasks.errors import BrokerConnectionError
from amqp_tasks.transport.rabbitmq._connection import Link, LinkState
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("KeptLink",)

KEPT_FOR = 30.0
"""Seconds for which it waits for the next one."""


class KeptLink:
    """At most one link, with an open connection and no channel on it. Owner thread only.

    Args:
        loop: of the I/O thread.
        close_timeout: seconds that the broker has to say goodbye.
        on_gone: called whenever it has ended.
    """

    def __init__(self, loop: DoorLoop, *, close_timeout: float, on_gone: Callable[[], None]) -> None:
        self._loop, self._close_timeout, self._on_gone = loop, close_timeout, on_gone
        self._link: Link | None = None
        self._timer: Any = None
        self._is_closed = False

    @property
    def links(self) -> list[Link]:
        """It, or none."""
        return [] if self._link is None else [self._link]

    def keep(self, link: Link) -> bool:
        """Keep an open link on which nothing is left; False: another is kept, or none any more."""
        if self._is_closed or self._link is not None:
            return False
        self._link = link
        link.hand_to(on_open=_unused, on_lost=self._on_lost, on_refused=self._on_lost)
        self._timer = self._loop.call_guarded(KEPT_FOR, self._end)
        return True

    def take(self) -> Link | None:
        """The kept one, which is the caller's from now on."""
        link = self._link
        if link is None or link.state is not LinkState.OPEN:
            return None
        self._forget()
        return link

    def close(self) -> None:
        """Keep none any more."""
        self._is_closed = True
        self._end()

    def cut(self) -> None:
        """Likewise, without waiting for the broker."""
        self._is_closed = True
        self._cut()

    def _end(self) -> None:
        link = self._link
        if link is None or link.connection is None:
            return
        self._stop_timer()
        if link.state is LinkState.OPEN:
            link.connection.add_on_close_callback(partial(self._on_closed, link))
            link.close()
        self._timer = self._loop.call_guarded(self._close_timeout, self._cut)

    def _cut(self) -> None:
        for link in self.links:
            link.cut()
        self._forget()

    def _on_lost(self, _error: BrokerConnectionError) -> None:
        self._cut()  # nobody needs it now: the next one connects

    def _on_closed(self, link: Link, _connection: FastConnection, _reason: Any) -> None:
        if link is self._link:  # else it was cut meanwhile, and another one may be kept
            self._forget()

    def _forget(self) -> None:
        self._stop_timer()
        self._link = None
        self._on_gone()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None


def _unused(_connection: FastConnection) -> None:
    """It is open already, and is not opened again while it is kept."""
