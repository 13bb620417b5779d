"""Reporting what this process has counted, now and then and at its end; see "The counts" in `docs/explanation/account.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqp_tasks.transport._delay import is_of_wheel
from amqp_tasks.transport.rabbitmq._fastwire import encode_head
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._publisher import PUBLISH_CHANNEL, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqp_tasks.clock import Clock
    from amqp_tasks.errors import PublishError
    from amqp_tasks.transport._tally import Tally
    from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("CountReports",)

FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
_TIMEOUT = 10.0


class CountReports:
    """Life: 1. `begin`, at the first connection; 2. a report after one second, and after pauses that double up to a minute, where
    something was counted; 3. `end`: the last word, where a connection is there. What is not stored is told with the next one.

    Owner thread only.

    Args:
        loop: for the pauses.
        publisher: for the reports.
        tally: what is reported.
        clock: time.
        is_at_hand: whether a connection for publishing can be had at once, although none was needed so far.
    """

    def __init__(
        self,
        loop: DoorLoop,
        publisher: Publisher,
        tally: Tally,
        *,
        clock: Clock,
        is_at_hand: Callable[[], bool],
    ) -> None:
        self._loop, self._publisher, self._tally, self._clock = loop, publisher, tally, clock
        self._is_at_hand = is_at_hand
        self._pause = FIRST_PAUSE
        self._has_begun = self._is_over = False

    def begin(self) -> None:
        """Report from now on; idempotent."""
        if not self._has_begun:
            self._has_begun = True
            self._loop.call_guarded(self._pause, self._continue)

    def end(self) -> None:
        """Say that nothing more is counted."""
        self._send(is_last=True)
        self._is_over = True

    def _continue(self) -> None:
        if not self._is_over:
            self._send(is_last=False)
            self._pause = min(MAX_PAUSE, 2 * self._pause)
            self._loop.call_guarded(self._pause, self._continue)

    def _send(self, *, is_last: bool) -> None:
        if self._is_over or not self._may_send:
            return
        message = self._tally.report(is_last=is_last)
        if message is not None:
            head = encode_head(PUBLISH_CHANNEL, message)
            self._publisher.submit(Pending(message, head, self._clock.monotonic() + _TIMEOUT, self))

    @property
    def _may_send(self) -> bool:
        """Whether it goes out soon, and costs no channel: who may not write to the default exchange loses his over the attempt.

        A worker may; of a caller it is known from what it has published by it, or by the timer wheel, which needs that as well.
        """
        is_allowed = self._tally.has_ends or any(
            not name or is_of_wheel(name) for name in self._publisher.confirmed_exchanges
        )
        return is_allowed and (self._publisher.is_flowing or self._is_at_hand())

    def done(self, index: int, error: PublishError | None) -> None:
        """See `OutcomeSink.done`."""
        if error is not None:
            self._tally.repeat()
