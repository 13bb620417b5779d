"""Carrying out a topology, on whatever can declare."""

from __future__ import annotations

from typing import Protocol

from amqp_routing._binding import Binding, DestinationKind
from amqp_routing._exchange import PREDECLARED_EXCHANGES, Exchange
from amqp_routing._queue import Queue
from amqp_routing._table import Table, TableValue
from amqp_routing._topology import Topology

__all__ = ("Declarer", "declare")


class Declarer(Protocol):
    """What can declare: pika's channels as they are, or anything with these methods."""

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = ...,
        *,
        durable: bool = ...,
        auto_delete: bool = ...,
        internal: bool = ...,
        arguments: dict[str, TableValue] | None = ...,
    ) -> object:
        """exchange.declare."""

    def queue_declare(
        self,
        queue: str,
        *,
        durable: bool = ...,
        exclusive: bool = ...,
        auto_delete: bool = ...,
        arguments: dict[str, TableValue] | None = ...,
    ) -> object:
        """queue.declare."""

    def queue_bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str | None = ...,
        arguments: dict[str, TableValue] | None = ...,
    ) -> object:
        """queue.bind."""

    def exchange_bind(
        self,
        destination: str,
        source: str,
        routing_key: str = ...,
        arguments: dict[str, TableValue] | None = ...,
    ) -> object:
        """exchange.bind."""


def declare(topology: Topology, declarer: Declarer) -> None:
    """Declare everything, in an order in which no message can pass a part that still lacks its way on.

    Exchanges come first, then queues (those that dead-letter nowhere before the others), then bindings to queues, then
    bindings between exchanges. Idempotent on a broker; the exchanges of the broker itself are left alone.

    Raises:
        Exception: whatever `declarer` raises; what was declared before stays.
    """
    for exchange in topology.exchanges:
        if exchange.name not in PREDECLARED_EXCHANGES:
            _declare_exchange(exchange, declarer)
    for queue in sorted(topology.queues, key=lambda queue: queue.dead_letter_exchange is not None):
        _declare_queue(queue, declarer)
    for binding in sorted(topology.bindings, key=lambda b: b.destination_kind is DestinationKind.EXCHANGE):
        _bind(binding, declarer)


def _declare_exchange(exchange: Exchange, declarer: Declarer) -> None:
    declarer.exchange_declare(
        exchange=exchange.name,
        exchange_type=exchange.type.value,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=exchange.declared_arguments(),
    )


def _declare_queue(queue: Queue, declarer: Declarer) -> None:
    declarer.queue_declare(
        queue=queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=queue.declared_arguments(),
    )


def _bind(binding: Binding, declarer: Declarer) -> None:
    arguments = Table(binding.arguments).plain()
    if binding.destination_kind is DestinationKind.QUEUE:
        declarer.queue_bind(
            queue=binding.destination,
            exchange=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )
    else:
        declarer.exchange_bind(
            destination=binding.destination,
            source=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )
