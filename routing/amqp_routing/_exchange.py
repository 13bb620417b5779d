"""Exchanges as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from amqp_routing._declared import Declared
from amqp_routing._errors import DeclarationError
from amqp_routing._names import enum_member, name_faults, short_repr
from amqp_routing._table import Table, TableValue, table_faults

__all__ = ("DEFAULT_EXCHANGE", "PREDECLARED_EXCHANGES", "Exchange", "ExchangeType")


class ExchangeType(StrEnum):
    """How an exchange chooses among its bindings."""

    DIRECT = "direct"
    """The routing key equals the binding key."""
    TOPIC = "topic"
    """The binding key is a pattern over the words of the routing key: `*` one word, `#` any number."""
    FANOUT = "fanout"
    """Every binding, whatever the key."""
    HEADERS = "headers"
    """The binding's arguments are compared with the message's headers."""
    CONSISTENT_HASH = "x-consistent-hash"
    """One binding, by the hash of the key or a header; the binding key is its weight.

    Needs the plugin `rabbitmq_consistent_hash_exchange`.
    """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Exchange(Declared):
    """An exchange, equal to another that would be declared alike.

    Args:
        name: up to 255 bytes; names that begin with `amq.` belong to the broker.
        type: how it routes.
        durable: it outlives a restart of the broker.
        auto_delete: it is deleted when its last binding is.
        internal: clients cannot publish to it, only other exchanges and dead-lettering can.
        alternate_exchange: where messages go that match none of its bindings; `None`: nowhere.
        arguments: further declaration arguments, e.g. `{"hash-header": "user"}` for a consistent hash.

    Raises:
        DeclarationError: RabbitMQ would refuse it; all faults are listed.

    See: exchange.declare; https://www.rabbitmq.com/docs/exchanges, /docs/ae.
    """

    name: str = field(kw_only=False)
    type: ExchangeType = field(default=ExchangeType.DIRECT, kw_only=False)
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    alternate_exchange: str | None = None
    arguments: Mapping[str, TableValue] = field(default_factory=Table)

    def __post_init__(self) -> None:
        subject = f"exchange {self.name!r}"
        object.__setattr__(
            self, "type", enum_member(ExchangeType, self.type, subject=subject, field_name="type")
        )
        faults = tuple(_faults(self))
        if faults:
            raise DeclarationError(subject, faults)
        object.__setattr__(self, "arguments", Table(self.arguments))

    def declared_arguments(self) -> dict[str, TableValue]:
        """The argument table of exchange.declare, new on each call."""
        table = Table(self.arguments).plain()
        if self.alternate_exchange is not None:
            table["alternate-exchange"] = self.alternate_exchange
        return table

    def _declaration(self) -> tuple[object, ...]:
        flags = (self.durable, self.auto_delete, self.internal)
        return (self.name, self.type, *flags, self.alternate_exchange, self.arguments)

    def __repr__(self) -> str:
        return short_repr(self)


def _faults(exchange: Exchange) -> Iterator[str]:
    yield from table_faults(exchange.arguments)
    if "alternate-exchange" in exchange.arguments:
        yield "give alternate-exchange as alternate_exchange=…, not in arguments"
    if exchange.alternate_exchange == "":
        # Bindings to the default exchange are implicit, and as an alternate RabbitMQ does not look at them.
        yield "the default exchange as alternate_exchange drops every message: name another exchange"
    if exchange.name in _BROKERS_OWN:
        yield from _brokers_own_faults(exchange)
    else:
        yield from name_faults(exchange.name)


def _brokers_own_faults(exchange: Exchange) -> Iterator[str]:
    expected, is_internal = _BROKERS_OWN[exchange.name]
    if exchange.type is not expected:
        yield f"the broker's own exchange of this name has type {expected.value}, not {exchange.type.value}"
    if not exchange.durable or exchange.auto_delete or exchange.internal is not is_internal:
        yield "the broker's own exchange of this name cannot have other flags; leave them out"
    if exchange.alternate_exchange is not None or exchange.arguments:
        yield "the broker's own exchange of this name takes no arguments; use a policy or another exchange"


_BROKERS_OWN: Mapping[str, tuple[ExchangeType, bool]] = {
    "": (ExchangeType.DIRECT, False),
    "amq.direct": (ExchangeType.DIRECT, False),
    "amq.fanout": (ExchangeType.FANOUT, False),
    "amq.topic": (ExchangeType.TOPIC, False),
    "amq.headers": (ExchangeType.HEADERS, False),
    "amq.match": (ExchangeType.HEADERS, False),
    "amq.rabbitmq.trace": (ExchangeType.TOPIC, True),
}

DEFAULT_EXCHANGE = ""
"""The exchange to which every queue is bound by its name, and to which nothing else can be bound."""

PREDECLARED_EXCHANGES: Mapping[str, Exchange] = {
    name: Exchange(name, type=kind, internal=is_internal)
    for name, (kind, is_internal) in _BROKERS_OWN.items()
}
"""The exchanges that each virtual host has from the start, by name."""
