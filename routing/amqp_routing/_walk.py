"""The way of one message through exchanges, step by step, as RabbitMQ routes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from amqp_routing._binding import Binding, DestinationKind
from amqp_routing._exchange import DEFAULT_EXCHANGE, Exchange, ExchangeType
from amqp_routing._match import binding_matches
from amqp_routing._queue import Queue
from amqp_routing._table import TableValue

__all__ = ("Parts", "Visit", "queues_of", "walk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What routing looks at: exchanges and queues by name, bindings by their source."""

    exchanges: Mapping[str, Exchange]
    queues: Mapping[str, Queue]
    bindings_of: Mapping[str, tuple[Binding, ...]]

    @classmethod
    def of(
        cls, exchanges: Mapping[str, Exchange], queues: Mapping[str, Queue], bindings: Iterable[Binding]
    ) -> Parts:
        """Index the bindings; destinations that do not exist are kept."""
        bindings_of: dict[str, tuple[Binding, ...]] = {}
        for binding in bindings:
            bindings_of[binding.source] = (*bindings_of.get(binding.source, ()), binding)
        return cls(exchanges=exchanges, queues=queues, bindings_of=bindings_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One exchange on the way.

    Attributes:
        exchange: which.
        reached_from: the exchange before it; `None` for the one published to.
        is_alternate: it was reached as the alternate exchange of that one, not by a binding.
        matched: its bindings that take the message.
        unmatched: its bindings that do not.
        queue_names: the queues it passes the message to.
        alternate: the exchange that gets the message because nothing here took it.
    """

    exchange: Exchange
    reached_from: str | None
    is_alternate: bool
    matched: tuple[Binding, ...]
    unmatched: tuple[Binding, ...]
    queue_names: tuple[str, ...]
    alternate: str | None

    @property
    def is_choice(self) -> bool:
        """The broker takes only one of the matched bindings, by a hash that cannot be told from here."""
        return self.exchange.type is ExchangeType.CONSISTENT_HASH and len(self.matched) > 1


def walk(
    parts: Parts, start: Exchange, routing_keys: tuple[str, ...], headers: Mapping[str, TableValue]
) -> Iterator[Visit]:
    """Every exchange that gets the message, each once, in the order the message spreads."""
    seen = {start.name}
    waiting: list[tuple[Exchange, str | None, bool]] = [(start, None, False)]
    while waiting:
        visit = _visit(parts, *waiting.pop(0), routing_keys, headers)
        yield visit
        for name, is_alternate in _onward(visit):
            exchange = parts.exchanges.get(name)
            if exchange is not None and name not in seen:
                seen.add(name)
                waiting.append((exchange, visit.exchange.name, is_alternate))


def queues_of(visits: Iterable[Visit]) -> tuple[str, ...]:
    """All queues on the way, each once."""
    return tuple(dict.fromkeys(name for visit in visits for name in visit.queue_names))


def _visit(
    parts: Parts,
    exchange: Exchange,
    reached_from: str | None,
    is_alternate: bool,
    routing_keys: tuple[str, ...],
    headers: Mapping[str, TableValue],
) -> Visit:
    bindings = parts.bindings_of.get(exchange.name, ())
    matched = tuple(b for b in bindings if binding_matches(exchange.type, b, routing_keys, headers))
    if exchange.name == DEFAULT_EXCHANGE:
        queue_names = tuple(key for key in routing_keys if key in parts.queues)
    else:
        queue_names = tuple(b.destination for b in matched if b.destination_kind is DestinationKind.QUEUE)
    return Visit(
        exchange=exchange,
        reached_from=reached_from,
        is_alternate=is_alternate,
        matched=matched,
        unmatched=tuple(b for b in bindings if b not in matched),
        queue_names=tuple(dict.fromkeys(queue_names)),
        # Asked of each exchange on the way by itself: a binding to an exchange counts as taken, even if that one
        # then finds no queue.
        alternate=None if matched or queue_names else exchange.alternate_exchange,
    )


def _onward(visit: Visit) -> Iterator[tuple[str, bool]]:
    if visit.alternate is not None:
        yield visit.alternate, True
    for binding in visit.matched:
        if binding.destination_kind is DestinationKind.EXCHANGE:
            yield binding.destination, False
