"""Does the broker still know our consumers? It may lose one and tell nobody. Owner thread only.

See `docs/explanation/health.md`, "The roll call", for the states and what is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from amqp_tasks.errors import QueueNotRunning
from amqp_tasks.transport._contract import QueueStatus
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._operations import Operation, Script
from amqp_tasks.transport.rabbitmq._topology import status_script

__all__ = ("RollCall",)

LOGGER = logging.getLogger(__name__)

FIRST_AFTER, AGAIN_AFTER, EVERY = 1.0, 5.0, 60.0
"""Seconds: from a new channel to the first call, from a doubt to the next, and between calls."""
_TIMES = 2
"""How often a queue is said to be lost before its count is not believed any more."""

Statuses = Mapping[str, QueueStatus | None]


class RollCall:
    """Calls from time to time until its channel is gone.

    Args:
        loop: of the I/O thread.
        timeout: seconds for the answers to one call.
        tags: consumer tag of each queue to call, by its name; empty while consumers are being changed.
        on_lost: the broker does not know the consumer of this queue; how many times now, without having been counted in between.
    """

    def __init__(
        self,
        loop: DoorLoop,
        *,
        timeout: float,
        tags: Callable[[], Mapping[str, str]],
        on_lost: Callable[[str, int, bool], None],
    ) -> None:
        self._loop, self._timeout, self._tags, self._on_lost = loop, timeout, tags, on_lost
        self._connection: FastConnection | None = None
        self._doubted: dict[str, str] = {}
        self._losses: dict[str, int] = {}
        self._timer: Any = None

    def begin(self, connection: FastConnection) -> None:
        """There is a new channel."""
        self.stop()
        self._connection = connection
        self._later(FIRST_AFTER)

    def stop(self) -> None:
        """The channel is gone. Idempotent."""
        self._connection = None
        self._doubted = {}
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def _later(self, seconds: float) -> None:
        self._timer = self._loop.call_guarded(seconds, self._call)

    def _call(self) -> None:
        self._timer = None
        connection, tags = self._connection, self._believed()
        assert connection is not None
        if not tags:
            self._later(AGAIN_AFTER)
            return
        Operation(
            self._loop,
            connection,
            _count_script(tags),
            timeout=self._timeout,
            on_done=partial(self._answered, connection, tags),
        ).start()

    def _believed(self) -> dict[str, str]:
        return {name: tag for name, tag in self._tags().items() if self._losses.get(name, 0) <= _TIMES}

    def _answered(
        self,
        connection: FastConnection,
        called: Mapping[str, str],
        statuses: Statuses | None,
        _error: Exception | None,
    ) -> None:
        if connection is not self._connection or self._timer is not None:
            return  # of a channel that is gone
        now, before = self._tags(), self._doubted
        same = {name: status for name, status in (statuses or {}).items() if now.get(name) == called[name]}
        for name, status in same.items():
            if status is not None and status.consumers:
                self._losses.pop(name, None)
        self._doubted = {name: called[name] for name, status in same.items() if _is_doubtful(status)}
        lost = [name for name, tag in self._doubted.items() if before.get(name) == tag]
        self._later(AGAIN_AFTER if self._doubted else EVERY)
        for name in lost:
            if self._connection is not None:  # the one before may have cost it
                self._note_lost(name, is_there=same[name] is not None)

    def _note_lost(self, name: str, *, is_there: bool) -> None:
        times = self._losses[name] = self._losses.get(name, 0) + 1
        if times <= _TIMES:
            self._on_lost(name, times, is_there)
        else:
            LOGGER.warning(
                "the broker counts no consumer of queue %r, although it says that it is consumed: its count is not looked at"
                " any more",
                name,
                extra={"action": "not_counted", "queue": name},
            )


def _is_doubtful(status: QueueStatus | None) -> bool:
    # Nothing and nobody is what RabbitMQ says of a queue without a leader too; our consumer may be there when it has one.
    return status is None or (status.messages > 0 and not status.consumers)


def _count_script(names: Iterable[str]) -> Script[dict[str, QueueStatus | None]]:
    found: dict[str, QueueStatus | None] = {}
    for name in names:
        try:
            found[name] = yield from status_script(name)
        except QueueNotRunning:
            continue  # it says nothing of its consumers until it runs
    return found
