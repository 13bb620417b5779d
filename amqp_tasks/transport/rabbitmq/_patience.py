"""How long a channel waits for an answer. Owner thread only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("Patience",)


class Patience:
    """The one answer that a channel waits for; what does not come in time costs the connection.

    Heartbeats are no help here: the broker sends them while one of its channels or queues hangs.

    Args:
        loop: of the I/O thread.
        seconds: for each answer.
        give_up: told what was not answered, in words.
    """

    def __init__(self, loop: DoorLoop, seconds: float, give_up: Callable[[str], None]) -> None:
        self._loop, self._seconds, self._give_up = loop, seconds, give_up
        self.awaited = ""
        """The method that is not answered yet; empty when none is."""
        self._timer: Any = None

    def expect(self, method: str) -> None:
        """`method` was asked for; an earlier one counts as answered."""
        self.rest()
        self.awaited = method
        self._timer = self._loop.call_guarded(self._seconds, partial(self._end, method))

    def rest(self) -> None:
        """Nothing is waited for any more. Idempotent."""
        self.awaited = ""
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def _end(self, method: str) -> None:
        self.rest()
        self._give_up(f"{method} was not answered within {self._seconds:g} s")
