"""When to give a consumer a new channel: at brokers that may leave one of its queues dangling. Owner thread only.

RabbitMQ 3.10 tells nobody when a quorum queue is deleted and declared again in the same moment: it consumes the new one for the
channel by itself, and then drops what that delivers, as it would what it has seen before. Nothing that a client can ask for shows it: what
was dropped counts as delivered. A new channel sets it right and gives back what was dropped. RabbitMQ 4.0 cancels such a consumer.

So a queue from which nothing has come for a while is a reason for a new channel, and the right moment is one in which nothing is open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("RIGHT_FROM", "Renewal")

RIGHT_FROM = (4, 0)
"""The version of RabbitMQ from which on it is not needed."""
RENEW_AFTER = 30.0
"""Seconds without a delivery of one queue after which a channel is renewed."""
_MAX_PAUSE = 16
"""Times that, after attempts that came to nothing."""


class Renewal:
    """Looks at a channel from time to time until it is gone.

    Args:
        loop: of the I/O thread.
        expected: names of the queues that are consumed, or are so when a pause is over.
        due: nothing came of one of them for a while: renew the channel, or ask to be called again (`watch`, `put_off`).

    Attributes:
        silent: those of which nothing has come since the last look; whoever hands deliveries out takes theirs away.
    """

    def __init__(
        self, loop: DoorLoop, *, expected: Callable[[], Collection[str]], due: Callable[[], None]
    ) -> None:
        self._loop, self._expected, self._due = loop, expected, due
        self.silent: set[str] = set()
        self._pause = 1
        self._timer: Any = None

    def begin(self) -> None:
        """There is a new channel."""
        self._pause = 1
        self.watch()

    def watch(self) -> None:
        """Look again after a while, and at nothing before. Idempotent."""
        self.stop()
        self.silent.update(self._expected())
        self._timer = self._loop.call_guarded(RENEW_AFTER * self._pause, self._look)

    def put_off(self) -> None:
        """An attempt came to nothing: look again after twice as long."""
        self._pause = min(_MAX_PAUSE, self._pause * 2)
        self.watch()

    def stop(self) -> None:
        """The channel is gone. Idempotent."""
        self.silent.clear()
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.silent.intersection(self._expected()):
            self._due()
        else:
            self.watch()
