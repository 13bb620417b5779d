"""Bindings as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from amqp_routing._errors import DeclarationError
from amqp_routing._names import enum_member, key_faults
from amqp_routing._table import Table, TableValue, table_faults

__all__ = ("Binding", "DestinationKind")


class DestinationKind(StrEnum):
    """What a binding leads to."""

    QUEUE = "queue"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A way for messages from an exchange to a queue or to another exchange.

    Args:
        source: the name of the exchange that messages come from.
        destination: the name of the queue or exchange they go to.
        destination_kind: which of the two.
        routing_key: what the exchange's type makes of it: equal key, pattern, weight, or nothing.
        arguments: for a headers exchange the headers to match and `x-match`.

    Raises:
        DeclarationError: RabbitMQ would refuse it; all faults are listed.

    See: queue.bind, exchange.bind; https://www.rabbitmq.com/docs/e2e.
    """

    source: str = field(kw_only=False)
    destination: str = field(kw_only=False)
    destination_kind: DestinationKind = DestinationKind.QUEUE
    routing_key: str = ""
    arguments: Mapping[str, TableValue] = field(default_factory=Table)

    def __post_init__(self) -> None:
        kind = enum_member(
            DestinationKind, self.destination_kind, subject=str(self), field_name="destination_kind"
        )
        object.__setattr__(self, "destination_kind", kind)
        faults = tuple(_faults(self))
        if faults:
            raise DeclarationError(str(self), faults)
        object.__setattr__(self, "arguments", Table(self.arguments))

    def __str__(self) -> str:
        return f"binding {self.source!r} -> {self.destination_kind} {self.destination!r} (key {self.routing_key!r})"


def _faults(binding: Binding) -> Iterator[str]:
    yield from key_faults(binding.routing_key)
    yield from table_faults(binding.arguments)
    if not binding.source:
        yield "nothing can be bound to the default exchange; every queue is reachable there by its name"
    if not binding.destination:
        yield "the destination is empty; name a queue or an exchange"
