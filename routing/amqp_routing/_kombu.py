"""kombu's exchanges and queues as ours, and back. kombu is imported when something is converted to it.

What kombu's objects say beyond a declaration (`no_ack`, `passive`, a transient `delivery_mode`, callbacks) has no
place here; it is refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeAlias, cast

from amqp_routing._binding import Binding, DestinationKind
from amqp_routing._errors import ConversionError
from amqp_routing._exchange import DEFAULT_EXCHANGE, PREDECLARED_EXCHANGES, Exchange
from amqp_routing._queue import Queue
from amqp_routing._queue_arguments import ARGUMENT_OF_FIELD, FIELD_OF_ARGUMENT, QueueType, Unit
from amqp_routing._table import Table, TableValue
from amqp_routing._topology import Topology

__all__ = (
    "exchange_from_kombu",
    "exchange_to_kombu",
    "parts_from_kombu",
    "queue_from_kombu",
    "queue_to_kombu",
    "topology_from_kombu",
    "topology_to_kombu",
)

KombuExchange: TypeAlias = Any
"""A kombu.Exchange; kombu ships no types."""
KombuQueue: TypeAlias = Any
"""A kombu.Queue; kombu ships no types."""

_KOMBU_SECONDS = {"expires": "x-expires", "message_ttl": "x-message-ttl"}
_KOMBU_COUNTS = {
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
    "max_priority": "x-max-priority",
}


def _kombu() -> Any:
    """The module, which has no types to check and is slow to import."""
    return import_module("kombu")


def exchange_from_kombu(exchange: KombuExchange) -> Exchange:
    """The exchange that kombu would declare.

    Raises:
        ConversionError: it says more than a declaration can (`passive`, `no_declare`, transient messages).
        DeclarationError: RabbitMQ would refuse it, or its type is unknown here.
    """
    subject = f"kombu exchange {exchange.name!r}"
    if exchange.name in PREDECLARED_EXCHANGES and exchange.name != DEFAULT_EXCHANGE:
        return Exchange(exchange.name, type=exchange.type)
    if exchange.name == DEFAULT_EXCHANGE:
        return PREDECLARED_EXCHANGES[DEFAULT_EXCHANGE]
    if exchange.passive or exchange.no_declare:
        raise ConversionError(f"{subject} is not to be declared: leave that out and set topology='check'")
    if exchange.delivery_mode in (1, "transient"):
        raise ConversionError(
            f"{subject} has transient messages: set delivery_mode=1 in the route or the call"
        )
    arguments = dict(cast("Mapping[str, TableValue]", exchange.arguments or {}))
    return Exchange(
        exchange.name,
        type=exchange.type,
        durable=bool(exchange.durable),
        auto_delete=bool(exchange.auto_delete),
        alternate_exchange=arguments.pop("alternate-exchange", None),
        arguments=arguments,
    )


def exchange_to_kombu(exchange: Exchange) -> KombuExchange:
    """The kombu exchange that declares the same.

    Raises:
        ConversionError: it is internal, which kombu cannot say.
    """
    if exchange.internal:
        raise ConversionError(f"exchange {exchange.name!r} is internal, which kombu cannot declare")
    return _kombu().Exchange(
        exchange.name,
        type=exchange.type.value,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        arguments=exchange.declared_arguments(),
    )


def queue_from_kombu(queue: KombuQueue, *, default_type: QueueType = QueueType.CLASSIC) -> Queue:
    """The queue that kombu would declare, without its bindings; see `topology_from_kombu` for those.

    Args:
        queue: a kombu.Queue.
        default_type: the type where its arguments have no `x-queue-type`; the broker's own default is classic.

    Raises:
        ConversionError: it says more than a declaration can (`no_ack`, `no_declare`, `on_declared`).
        DeclarationError: RabbitMQ would refuse it.
    """
    _refuse_queue(queue)
    arguments = _kombu_arguments(queue)
    fields: dict[str, Any] = {"type": default_type}
    for name in [name for name, value in arguments.items() if _has_field(name, value)]:
        fields[FIELD_OF_ARGUMENT[name]] = _field_value(name, arguments.pop(name))
    return Queue(
        queue.name,
        durable=bool(queue.durable),
        exclusive=bool(queue.exclusive),
        auto_delete=bool(queue.auto_delete),
        arguments=arguments,
        consumer_arguments=dict(cast("Mapping[str, TableValue]", queue.consumer_arguments or {})),
        **fields,
    )


def _refuse_queue(queue: KombuQueue) -> None:
    subject = f"kombu queue {queue.name!r}"
    if queue.no_ack:
        raise ConversionError(
            f"{subject} has no_ack, with which a task is lost when a worker stops: leave it out"
        )
    if queue.no_declare:
        raise ConversionError(f"{subject} is not to be declared: leave that out and set topology='check'")
    if queue.on_declared is not None:
        raise ConversionError(
            f"{subject} has an on_declared callback, which is not called here: leave it out"
        )


def _kombu_arguments(queue: KombuQueue) -> dict[str, TableValue]:
    """The table kombu would send, its own fields folded in the way its AMQP transports do (whole milliseconds,
    cut off)."""
    arguments = dict(cast("Mapping[str, TableValue]", queue.queue_arguments or {}))
    for attribute, name in _KOMBU_SECONDS.items():
        if getattr(queue, attribute) is not None:
            arguments[name] = int(float(getattr(queue, attribute)) * 1000)
    for attribute, name in _KOMBU_COUNTS.items():
        if getattr(queue, attribute) is not None:
            arguments[name] = int(getattr(queue, attribute))
    return arguments


def _has_field(name: str, value: TableValue) -> bool:
    # Declared false is not the same to the broker as not declared, and the field cannot tell them apart.
    return name in FIELD_OF_ARGUMENT and value is not False


def _field_value(name: str, value: TableValue) -> TableValue:
    argument = ARGUMENT_OF_FIELD.get(FIELD_OF_ARGUMENT[name])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value / 1000 if argument is not None and argument.unit is Unit.SECONDS and is_number else value


def queue_to_kombu(topology: Topology, queue_name: str) -> KombuQueue:
    """The kombu queue that declares one queue of the topology with all its bindings.

    Raises:
        ConversionError: there is no such queue, or it is bound to an exchange that kombu cannot declare.
    """
    queue = topology.queue(queue_name)
    if queue is None:
        raise ConversionError(
            f"no queue {queue_name!r} in the topology (known: {', '.join(topology.queue_names)})"
        )
    converted = _kombu().Queue(
        queue.name,
        bindings=list(_kombu_bindings(topology, queue_name)),
        durable=queue.durable,
        exclusive=queue.exclusive,
        # In whole milliseconds: kombu would compute them from seconds and cut off, which may be one less.
        queue_arguments=queue.declared_arguments(),
        consumer_arguments=Table(queue.consumer_arguments).plain() or None,
    )
    # An exclusive queue is auto_delete to kombu's constructor, whatever it is told.
    converted.auto_delete = queue.auto_delete
    return converted


def _kombu_bindings(topology: Topology, queue_name: str) -> Iterator[Any]:
    for each in _queue_bindings(topology, queue_name):
        exchange = topology.exchange(each.source)
        assert exchange is not None, "a topology holds every exchange its bindings name"
        yield _kombu().binding(
            exchange_to_kombu(exchange), routing_key=each.routing_key, arguments=Table(each.arguments).plain()
        )


def _queue_bindings(topology: Topology, queue_name: str) -> Iterator[Binding]:
    for binding in topology.bindings:
        if binding.destination_kind is DestinationKind.QUEUE and binding.destination == queue_name:
            yield binding


def topology_from_kombu(
    queues: Iterable[KombuQueue], *, default_type: QueueType = QueueType.CLASSIC
) -> Topology:
    """Everything that declaring these kombu queues would declare: queues, exchanges and bindings.

    Raises:
        ConversionError, DeclarationError: as `exchange_from_kombu` and `queue_from_kombu`.
        TopologyError: they do not fit together.
    """
    parts = [part for queue in queues for part in parts_from_kombu(queue, default_type=default_type)]
    return Topology(
        exchanges=tuple(part for part in parts if isinstance(part, Exchange)),
        queues=tuple(part for part in parts if isinstance(part, Queue)),
        bindings=tuple(part for part in parts if isinstance(part, Binding)),
    )


def parts_from_kombu(
    queue: KombuQueue, *, default_type: QueueType = QueueType.CLASSIC
) -> Iterator[Exchange | Binding | Queue]:
    """Everything that declaring this kombu queue would declare; it may need exchanges and queues that others declare.

    Raises:
        ConversionError, DeclarationError: as `topology_from_kombu`.
    """
    for exchange, binding in _ways(queue):
        if exchange.name != DEFAULT_EXCHANGE:
            yield exchange
        if binding is not None:
            yield binding
    yield queue_from_kombu(queue, default_type=default_type)


def _ways(queue: KombuQueue) -> Iterator[tuple[Exchange, Binding | None]]:
    """The exchanges of a kombu queue and how it is bound to each; the default exchange needs no binding."""
    if queue.exchange is not None and queue.exchange.name:
        yield _way(queue, queue.exchange, queue.routing_key, queue.binding_arguments)
    for each in sorted(queue.bindings, key=_binding_order):
        yield _way(queue, each.exchange, each.routing_key, each.arguments)


def _binding_order(binding: Any) -> tuple[str, str, str]:
    # kombu keeps a set; the order must not change from run to run.
    return binding.exchange.name, binding.routing_key or "", repr(binding.arguments)


def _way(
    queue: KombuQueue,
    exchange: KombuExchange,
    routing_key: str | None,
    arguments: Mapping[str, TableValue] | None,
) -> tuple[Exchange, Binding | None]:
    converted = exchange_from_kombu(exchange)
    if converted.name == DEFAULT_EXCHANGE:
        return converted, None
    binding = Binding(converted.name, queue.name, routing_key=routing_key or "", arguments=arguments or {})
    return converted, binding


def topology_to_kombu(topology: Topology) -> tuple[KombuQueue, ...]:
    """The kombu queues that together declare this topology.

    Raises:
        ConversionError: it holds what kombu's queues cannot declare: bindings between exchanges, internal exchanges, or
            exchanges that no queue is bound to.
    """
    faults = tuple(_not_in_kombu(topology))
    if faults:
        raise ConversionError("\n".join(faults))
    return tuple(queue_to_kombu(topology, name) for name in topology.queue_names)


def _not_in_kombu(topology: Topology) -> Iterator[str]:
    for binding in topology.bindings:
        if binding.destination_kind is DestinationKind.EXCHANGE:
            yield f"{binding}: a kombu queue cannot bind exchanges to each other"
    sources = {b.source for b in topology.bindings if b.destination_kind is DestinationKind.QUEUE}
    for exchange in topology.exchanges:
        if exchange.name not in sources and exchange.name not in PREDECLARED_EXCHANGES:
            yield f"exchange {exchange.name!r}: no queue is bound to it, so that no kombu queue would declare it"
