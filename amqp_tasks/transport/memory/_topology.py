"""What a memory broker holds, and how it differs from what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from amqp_routing import (
    PREDECLARED_EXCHANGES,
    Binding,
    DestinationKind,
    Exchange,
    ExchangeType,
    Queue,
    Topology,
)
from amqp_tasks.errors import BrokerOperationError, ConfigurationError
from amqp_tasks.transport._difference import difference
from amqp_tasks.transport._partial import PartialTopology

__all__ = (
    "differences",
    "missing",
    "refuse_loose",
    "refuse_unsupported",
    "remembered",
    "without_bindings",
)


def remembered(before: Topology, latest: Topology) -> Topology:
    """Both together; where they declare something differently, the latest counts."""
    return PartialTopology(
        exchanges=(
            *latest.exchanges,
            *(each for each in before.exchanges if latest.exchange(each.name) is None),
        ),
        queues=(*latest.queues, *(each for each in before.queues if latest.queue(each.name) is None)),
        bindings=(*before.bindings, *latest.bindings),
    )


def refuse_unsupported(topology: Topology) -> None:
    """Say no to what would silently behave otherwise.

    Raises:
        ConfigurationError: a consistent-hash exchange.
    """
    for exchange in topology.exchanges:
        if exchange.type is ExchangeType.CONSISTENT_HASH:
            raise ConfigurationError(
                f"exchange {exchange.name!r} is of type {exchange.type}, which memory:// does not have: use an"
                " amqp:// broker"
            )


def refuse_loose(binding: Binding, held: Topology) -> None:
    """Refuse a binding of what is not there.

    Raises:
        BrokerOperationError: 404, as RabbitMQ says it.
    """
    is_queue = binding.destination_kind is DestinationKind.QUEUE
    known = held.queue(binding.destination) if is_queue else held.exchange(binding.destination)
    if known is None or held.exchange(binding.source) is None:
        raise BrokerOperationError(
            f"binding {binding.destination!r} to {binding.source!r}: one of the two does not exist",
            reply_code=404,
        )


def without_bindings(held: Topology, bindings: Collection[Binding]) -> Topology:
    """The rest, without these."""
    kept = tuple(each for each in held.bindings if each not in bindings)
    return PartialTopology(exchanges=held.exchanges, queues=held.queues, bindings=kept)


def missing(wanted: Topology, held: Topology) -> tuple[list[Exchange], list[Queue]]:
    """What is wanted and not there."""
    return (
        [each for each in wanted.exchanges if held.exchange(each.name) is None],
        [each for each in wanted.queues if held.queue(each.name) is None],
    )


def differences(wanted: Topology, held: Topology) -> tuple[str, ...]:
    """What is there with other arguments, a line each with the remedy."""
    lines: list[str] = []
    for exchange in wanted.exchanges:
        there = held.exchange(exchange.name)
        if there is not None and exchange.name not in PREDECLARED_EXCHANGES:
            lines += _compare("exchange", exchange.name, _exchange_facts(exchange), _exchange_facts(there))
    for queue in wanted.queues:
        found = held.queue(queue.name)
        if found is not None:
            lines += _compare("queue", queue.name, _queue_facts(queue), _queue_facts(found))
    return tuple(lines)


def _exchange_facts(exchange: Exchange) -> dict[str, Any]:
    flags = {"durable": exchange.durable, "auto_delete": exchange.auto_delete, "internal": exchange.internal}
    return {"type": exchange.type.value, **flags, **exchange.declared_arguments()}


def _queue_facts(queue: Queue) -> dict[str, Any]:
    flags = {"durable": queue.durable, "auto_delete": queue.auto_delete, "exclusive": queue.exclusive}
    return {**flags, **queue.declared_arguments()}


def _compare(kind: str, name: str, wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for argument in dict.fromkeys((*wanted, *found)):
        ours, theirs = wanted.get(argument), found.get(argument)
        if ours != theirs:
            yield difference(kind, name, argument, wanted=ours, found=theirs)
