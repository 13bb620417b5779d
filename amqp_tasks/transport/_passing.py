"""A transport that passes everything on to another one: what those that do something with each message have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from amqp_tasks.transport._contract import Transport

if TYPE_CHECKING:
    from amqp_routing import Binding, Topology
    from amqp_tasks.errors import BrokerOperationError, PublishError
    from amqp_tasks.message import KeyRing, OutgoingMessage
    from amqp_tasks.transport._contract import (
        Consumer,
        ConsumerEvent,
        ConsumerOptions,
        Delivery,
        QueueStatus,
        ServerInfo,
        TopologyMode,
        TransportStatistics,
    )
    from amqp_tasks.transport._rights import Right
    from amqp_tasks.transport._tally import Tally

__all__ = ("PassingTransport",)


class PassingTransport(Transport):
    """Thread safety: as the transport that it passes on to.

    Args:
        inner: does the work; closed with this one.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @property
    def keys(self) -> KeyRing | None:
        """See `Transport.keys`."""
        return self._inner.keys

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """See `Transport.publish`."""
        self._inner.publish(message, timeout=timeout)

    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """See `Transport.publish_many`."""
        return self._inner.publish_many(messages, timeout=timeout)

    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """See `Transport.publish_nowait`."""
        self._inner.publish_nowait(message, on_outcome, timeout=timeout)

    @property
    def tally(self) -> Tally:
        """See `Transport.tally`."""
        return self._inner.tally

    def open(self, *, timeout: float) -> ServerInfo:
        """See `Transport.open`."""
        return self._inner.open(timeout=timeout)

    def ensure_topology(
        self, topology: Topology, *, mode: TopologyMode, timeout: float | None = None, is_lasting: bool = True
    ) -> None:
        """See `Transport.ensure_topology`."""
        self._inner.ensure_topology(topology, mode=mode, timeout=timeout, is_lasting=is_lasting)

    def compare_topology(self, topology: Topology, *, timeout: float | None = None) -> tuple[str, ...]:
        """See `Transport.compare_topology`."""
        return self._inner.compare_topology(topology, timeout=timeout)

    def bind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.bind`."""
        self._inner.bind(bindings, timeout=timeout)

    def unbind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.unbind`."""
        self._inner.unbind(bindings, timeout=timeout)

    def refused_rights(
        self, rights: Iterable[Right], *, timeout: float | None = None
    ) -> Mapping[Right, BrokerOperationError]:
        """See `Transport.refused_rights`."""
        return self._inner.refused_rights(rights, timeout=timeout)

    def queue_status(self, queue_name: str, *, timeout: float | None = None) -> QueueStatus | None:
        """See `Transport.queue_status`."""
        return self._inner.queue_status(queue_name, timeout=timeout)

    def queue_statuses(
        self, queue_names: Sequence[str], *, timeout: float | None = None
    ) -> list[QueueStatus | None]:
        """See `Transport.queue_statuses`."""
        return self._inner.queue_statuses(queue_names, timeout=timeout)

    def purge_queue(self, queue_name: str, *, timeout: float | None = None) -> int:
        """See `Transport.purge_queue`."""
        return self._inner.purge_queue(queue_name, timeout=timeout)

    def delete_queue(self, queue_name: str, *, timeout: float | None = None) -> None:
        """See `Transport.delete_queue`."""
        self._inner.delete_queue(queue_name, timeout=timeout)

    def consume(
        self,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None = None,
    ) -> Consumer:
        """See `Transport.consume`."""
        return self._inner.consume(
            queue_names, options, on_deliveries=on_deliveries, on_event=on_event, declare=declare
        )

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._inner.statistics()

    def close(self, *, timeout: float = 5.0) -> None:
        """See `Transport.close`."""
        self._inner.close(timeout=timeout)
