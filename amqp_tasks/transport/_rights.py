"""Which of the broker's permissions it takes to declare, to bind and to delay. No I/O.

See: RabbitMQ's guide to access control. Each user has three patterns in a virtual host, for what it may configure, write and
read; a queue and an exchange of the same name fall under the same pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from amqp_routing import Binding, DestinationKind, Topology
from amqp_tasks.transport._delay import DUE_EXCHANGE, wheel_entry

__all__ = ("DEFAULT_EXCHANGE", "Permission", "Right", "rights_to_bind", "rights_to_delay")

DEFAULT_EXCHANGE = "amq.default"
"""The name under which permissions know the default exchange."""


class Permission(StrEnum):
    """What a pattern permits, in the order of `rabbitmqctl set_permissions`."""

    CONFIGURE = "configure"
    WRITE = "write"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Right:
    """One permission on one queue or exchange; the default exchange is named `DEFAULT_EXCHANGE`."""

    permission: Permission
    kind: DestinationKind
    name: str


def rights_to_bind(bindings: Iterable[Binding]) -> Iterator[Right]:
    """What it takes to make these bindings, or to remove them."""
    for binding in bindings:
        if binding.source:
            yield Right(Permission.WRITE, binding.destination_kind, binding.destination)
            yield Right(Permission.READ, DestinationKind.EXCHANGE, binding.source)


def rights_to_delay(exchange: str, routing_key: str) -> Iterator[Right]:
    """What it takes to send delayed messages there: their first part of the timer wheel stands for all of it."""
    entry = wheel_entry(1, exchange, routing_key)
    yield from _rights_to_declare(entry.topology())
    if entry.exit_queue is not None:
        yield from _rights_to_make(DestinationKind.QUEUE, entry.due_queue, exchange)
    yield from rights_to_bind((Binding(DUE_EXCHANGE, entry.due_queue, routing_key=entry.due_pattern),))
    yield Right(Permission.WRITE, DestinationKind.EXCHANGE, entry.exchange)


def _rights_to_declare(topology: Topology) -> Iterator[Right]:
    for exchange in topology.exchanges:
        yield from _rights_to_make(DestinationKind.EXCHANGE, exchange.name, exchange.alternate_exchange)
    for queue in topology.queues:
        yield from _rights_to_make(DestinationKind.QUEUE, queue.name, queue.dead_letter_exchange)
    yield from rights_to_bind(topology.bindings)


def _rights_to_make(kind: DestinationKind, name: str, onward: str | None) -> Iterator[Right]:
    """What passes messages on to an exchange is read by who declares it, and that exchange written to."""
    yield Right(Permission.CONFIGURE, kind, name)
    if onward is not None:
        yield Right(Permission.READ, kind, name)
        yield Right(Permission.WRITE, DestinationKind.EXCHANGE, onward or DEFAULT_EXCHANGE)
