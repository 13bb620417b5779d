"""Writing to the journal; see `docs/explanation/journal.md`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_routing import Topology
from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import TopologyMismatch, UnroutableError
from amqp_tasks.message import (
    JOURNAL_NAME,
    JournalEntry,
    current_origin,
    journal_message,
    journal_queue,
    new_task_id,
)
from amqp_tasks.transport import TopologyMode

if TYPE_CHECKING:
    from amqp_tasks.errors import PublishError
    from amqp_tasks.settings import Settings
    from amqp_tasks.transport import Transport

__all__ = ("NO_JOURNAL", "JournalWriter")

logger = logging.getLogger(__name__)

NO_JOURNAL = f"the journal {JOURNAL_NAME!r} is not on the broker: run `amqp-tasks topology apply`, or set topology='declare'"


class JournalWriter:
    """Adds entries to the journal. Thread safety: any thread.

    Args:
        transport: publishes them.
        settings: say whether the stream may be declared, and how.
        sender: stands in each entry; by default this process as messages name it.
        clock: the time of entries.
    """

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        *,
        sender: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._transport, self._sender, self._clock = transport, sender, clock
        self._mode = TopologyMode(settings.app.topology)
        self.max_age = settings.worker.journal_max_age
        """Seconds."""
        self.topology = Topology(queues=(journal_queue(settings.worker.journal_max_age),))
        self._is_declared = False

    @property
    def may_declare(self) -> bool:
        """Whether the stream is declared when it is missing."""
        return self._mode is TopologyMode.DECLARE

    def now(self) -> float:
        """Seconds since 1970, as entries have them."""
        return self._clock.now().timestamp()

    def entry(
        self, kind: str, facts: Mapping[str, Any] | None = None, *, entry_id: str | None = None
    ) -> JournalEntry:
        """A new entry, not written yet; the facts are JSON values."""
        return JournalEntry(
            kind=kind,
            id=entry_id or new_task_id(),
            time=self.now(),
            sender=self._sender or current_origin(),
            facts=facts or {},
        )

    def write(self, entries: Sequence[JournalEntry], *, timeout: float | None = None) -> None:
        """Add entries and return when the broker has confirmed them all; again is harmless.

        Raises:
            NotSent, SendUnknown: one was not, or may not have been, stored.
            TopologyMismatch: a queue of that name is no stream.
            BrokerConnectionError, BrokerOperationError: the stream cannot be declared.
        """
        self.declare(timeout=timeout)
        for error in self._transport.publish_many(map(journal_message, entries), timeout=timeout):
            if error is not None:
                raise self._explained(error)

    def write_nowait(self, entry: JournalEntry, on_outcome: Callable[[PublishError | None], None]) -> None:
        """Hand an entry over and return; `on_outcome` is called once, on the I/O thread. Declares nothing."""
        self._transport.publish_nowait(
            journal_message(entry),
            lambda error: on_outcome(None if error is None else self._explained(error)),
        )

    def declare(self, *, timeout: float | None = None) -> None:
        """See to it that the stream is there, where settings allow that; asks the broker once.

        Raises:
            TopologyMismatch: a queue of that name is no stream.
            BrokerConnectionError, BrokerOperationError: it cannot be declared.
        """
        if self._is_declared or not self.may_declare:
            return
        try:
            self._transport.ensure_topology(self.topology, mode=TopologyMode.DECLARE, timeout=timeout)
        except TopologyMismatch as exc:
            if any("x-queue-type" in line for line in exc.differences):
                raise
            # Another maximum age, say: what is there serves as well.
            logger.info("the journal is declared otherwise: %s", exc, extra={"action": "journal"})
        self._is_declared = True

    @staticmethod
    def _explained(error: PublishError) -> PublishError:
        if not isinstance(error, UnroutableError):
            return error
        explained = UnroutableError(NO_JOURNAL).about(
            exchange=error.exchange, routing_key=error.routing_key, message_id=error.message_id
        )
        explained.__cause__ = error
        return explained
