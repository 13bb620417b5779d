"""A transport that notes each delayed task in the index, once the broker has it; see `docs/explanation/delay.md`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from amqp_routing import Topology
from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import AmqpTasksError, BrokerConnectionError, NotSent
from amqp_tasks.message import DELAYED_NAME, delayed_notes, delayed_queue, delayed_task, printable
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport._passing import PassingTransport

if TYPE_CHECKING:
    from amqp_tasks.errors import PublishError
    from amqp_tasks.message import DelayedTask, OutgoingMessage
    from amqp_tasks.transport import Transport

__all__ = ("IndexingTransport", "declare_index")

logger = logging.getLogger(__name__)

_DECLARE_LIMIT = 5.0
"""Seconds that a bulk, whose messages have a deadline each from when they are taken, may take longer for it."""


def declare_index(transport: Transport, mode: TopologyMode, *, timeout: float | None = None) -> None:
    """See to it that the stream of the index is there, as far as `mode` allows.

    Raises:
        TopologyMismatch, UnknownQueue, BrokerConnectionError, BrokerOperationError: it cannot be had.
    """
    transport.ensure_topology(Topology(queues=(delayed_queue(),)), mode=mode, timeout=timeout)


class IndexingTransport(PassingTransport):
    """Passes everything on, and publishes a note after each delayed task that was confirmed, or may be stored.

    The note follows the confirm and is not waited for: a task is never in the index without being in the broker, and its
    call takes no longer. A note that cannot be stored is told as a warning; the task itself is not concerned.

    Thread safety: as the transport that it passes on to.

    Args:
        inner: does the work; closed with this one.
        mode: whether the stream may be declared.
        timeout: seconds for a publish that is given none, and what it needs first.
        clock: when tasks are due.
    """

    def __init__(
        self, inner: Transport, mode: TopologyMode, *, timeout: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(inner)
        self._mode, self._timeout, self._clock = mode, timeout, clock
        self._is_declared = self._has_warned = False

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """See `Transport.publish`."""
        noted = delayed_task(message, self._clock.now())
        if noted is None:
            self._inner.publish(message, timeout=timeout)
            return
        seconds = self._timeout if timeout is None else timeout
        began = self._clock.monotonic()
        self._declare(seconds)
        left = max(0.0, seconds - (self._clock.monotonic() - began))
        try:
            self._inner.publish(message, timeout=left)
        except NotSent:
            raise
        except AmqpTasksError:
            self._note([noted])
            raise
        self._note([noted])

    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """See `Transport.publish_many`."""
        delayed: list[tuple[int, DelayedTask]] = []
        outcomes: Sequence[PublishError | None] = ()
        try:
            outcomes = self._inner.publish_many(self._watched(messages, delayed, timeout), timeout=timeout)
        finally:
            # Of a batch that was broken off no outcome is known: what was taken of it is sent all the same.
            refused = {at for at, error in enumerate(outcomes) if isinstance(error, NotSent)}
            self._note([task for at, task in delayed if at not in refused])
        return outcomes

    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """See `Transport.publish_nowait`."""
        noted = delayed_task(message, self._clock.now())
        if noted is None:
            self._inner.publish_nowait(message, on_outcome, timeout=timeout)
            return

        def note(error: PublishError | None) -> None:
            if not isinstance(error, NotSent):
                self._note([noted])
            on_outcome(error)

        self._inner.publish_nowait(message, note, timeout=timeout)

    def _watched(
        self,
        messages: Iterable[OutgoingMessage],
        delayed: list[tuple[int, DelayedTask]],
        timeout: float | None,
    ) -> Iterator[OutgoingMessage]:
        for at, message in enumerate(messages):
            noted = delayed_task(message, self._clock.now())
            if noted is not None:
                if not delayed:
                    self._declare(self._timeout if timeout is None else timeout)
                delayed.append((at, noted))
            yield message

    def _declare(self, timeout: float) -> None:
        """Once; not for `publish_nowait`, where nothing may wait: a worker has declared it before it runs a task."""
        if self._is_declared or self._mode is TopologyMode.NONE:
            return
        try:
            declare_index(self._inner, self._mode, timeout=min(timeout, _DECLARE_LIMIT))
        except BrokerConnectionError:
            return  # the publish that follows says so
        except AmqpTasksError as exc:
            self._warn(exc)
        self._is_declared = True

    def _note(self, tasks: Sequence[DelayedTask]) -> None:
        try:
            for message in delayed_notes(tasks, self._clock.now()):
                self._inner.publish_nowait(message, self._tell)
        except AmqpTasksError as exc:
            self._warn(exc)

    def _tell(self, error: AmqpTasksError | None) -> None:
        if error is not None:
            self._warn(error)

    def _warn(self, error: AmqpTasksError) -> None:
        """Once: it is a state, and not news."""
        level, self._has_warned = (logging.DEBUG if self._has_warned else logging.WARNING), True
        logger.log(
            level, "a delayed task is not noted in %s, so that it is not listed (further ones silently): %s",
            DELAYED_NAME, printable(f"{error}", 512), extra={"action": "delayed_index"},
        )  # fmt: skip
