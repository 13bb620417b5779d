"""Reading a stream of entries once, as it stands: the index of delayed tasks, the journal, the counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import BrokerUnreachable, UnroutableError
from amqp_tasks.message import (
    JournalEntry,
    current_origin,
    journal_message,
    new_task_id,
    read_journal_entry,
    signed_for_queue,
)
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement
from amqp_tasks.transport._streams import OFFSET

if TYPE_CHECKING:
    from amqp_tasks.message import KeyRing, OutgoingMessage
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport

__all__ = ("read_stream",)

logger = logging.getLogger(__name__)

READ_LIMIT = 60.0
"""Seconds that a stream may take to be read."""
_MARK = "mark"
_PREFETCH = 1000
_CLOSE_TIMEOUT = 5.0


def read_stream(
    transport: Transport, name: str, learn: Callable[[JournalEntry], None], *, keys: KeyRing | None = None
) -> int | None:
    """Read a stream of entries as it stands, up to a mark that is written for that.

    Args:
        transport: reads.
        name: of the stream.
        learn: is told each entry.
        keys: by which entries are checked, and those of others passed over; None: all are told.

    Returns:
        The offset of its first entry: above 0 when older ones have left it. None: there is no such stream.

    Raises:
        BrokerConnectionError, BrokerOperationError: it cannot be read, or not within a minute.
    """
    mark = JournalEntry(
        kind=_MARK, id=new_task_id(), time=SYSTEM_CLOCK.now().timestamp(), sender=current_origin(), facts={}
    )
    if not _is_written(transport, journal_message(mark, queue_name=name), name):
        return None
    reader = _Reader(mark.id, learn, keys)
    consumer = transport.consume(
        (name,),
        ConsumerOptions(prefetch=_PREFETCH, arguments={name: {OFFSET: "first"}}),
        on_deliveries=reader.on_deliveries,
        on_event=reader.on_event,
    )
    try:
        reader.begin(consumer)
        if not reader.is_over.wait(READ_LIMIT):
            raise BrokerUnreachable(f"the stream {name!r} was not read within {READ_LIMIT:g} s")
    finally:
        consumer.close(timeout=_CLOSE_TIMEOUT)
    if reader.error is not None:
        raise reader.error
    return reader.first_offset


def _is_written(transport: Transport, mark: OutgoingMessage, name: str) -> bool:
    """Write the mark; False: there is no such stream."""
    try:
        transport.publish(mark)
    except UnroutableError:
        if transport.queue_status(name) is None:  # else its node was starting; one that is down raises
            return False
        transport.publish(mark)
    return True


class _Reader:
    """Takes deliveries on the I/O thread until the mark comes. A lost connection does not end it: it is read on then."""

    def __init__(self, mark: str, learn: Callable[[JournalEntry], None], keys: KeyRing | None) -> None:
        self._mark, self._learn, self._keys = mark, learn, keys
        self._consumer: Consumer | None = None
        self._has_begun = Event()
        self.is_over = Event()
        self.error: Exception | None = None
        self.first_offset = -1

    def begin(self, consumer: Consumer) -> None:
        """The transport may call back before `consume` has returned."""
        self._consumer = consumer
        self._has_begun.set()

    def on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        self._has_begun.wait()
        assert self._consumer is not None
        for delivery in deliveries:
            self._consumer.settle(delivery, Settlement.ACK)
            try:
                if self.first_offset < 0:
                    self.first_offset = delivery.properties.headers.get(OFFSET, 0)
                if self._keys is not None:
                    queue = signed_for_queue(delivery.queue_name)
                    self._keys.check(delivery.properties, delivery.body, queue)
                entry = read_journal_entry(delivery.body)
                if entry.id == self._mark:
                    self.is_over.set()
                self._learn(entry)
            except Exception as exc:  # noqa: BLE001 - no entry may keep the others from being read
                logger.debug("passed over: %s", exc, extra={"action": "read_stream"})

    def on_event(self, event: ConsumerEvent) -> None:
        if event.state is ConsumerState.FAILED:
            self.error = event.error or BrokerUnreachable("the stream cannot be consumed")
            self.is_over.set()
