"""Which queues a message reaches, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from amqp_routing._binding import Binding
from amqp_routing._errors import PublishRefused, UnknownExchange
from amqp_routing._exchange import DEFAULT_EXCHANGE, Exchange
from amqp_routing._router import Decision
from amqp_routing._table import TableValue
from amqp_routing._topology import Topology
from amqp_routing._walk import Visit, queues_of, walk

__all__ = ("Explanation", "explain", "resolve")


def resolve(
    topology: Topology,
    exchange: str,
    routing_key: str,
    headers: Mapping[str, TableValue] | None = None,
) -> tuple[str, ...]:
    """The names of the queues that a message reaches, each once.

    Follows RabbitMQ: bindings between exchanges (cycles included), alternate exchanges, and the further routing keys
    in the headers `CC` and `BCC`. Behind a consistent-hash exchange every queue that may be chosen is in the result,
    while the broker picks one of them; `explain(…).is_exact` tells.

    Raises:
        UnknownExchange: the topology has no such exchange (the broker: 404).
        PublishRefused: the exchange is internal (403), or `CC`/`BCC` is not a list (406).
    """
    return queues_of(_visits(topology, exchange, routing_key, headers or {}))


def _visits(
    topology: Topology, exchange: str, routing_key: str, headers: Mapping[str, TableValue]
) -> Iterator[Visit]:
    start = _entry(topology, exchange)
    return walk(topology.parts, start, _routing_keys(routing_key, headers), headers)


def _entry(topology: Topology, name: str) -> Exchange:
    exchange = topology.exchange(name)
    if exchange is None:
        raise UnknownExchange(name, tuple(each.name for each in topology.exchanges))
    if exchange.internal:
        raise PublishRefused(f"exchange {name!r} is internal: publish to an exchange that is bound to it")
    return exchange


def _routing_keys(routing_key: str, headers: Mapping[str, TableValue]) -> tuple[str, ...]:
    """The message's key and those that RabbitMQ's sender-selected distribution adds."""
    keys = [routing_key]
    for name in ("CC", "BCC"):
        further = headers.get(name, ())
        if not isinstance(further, list | tuple):
            raise PublishRefused(f"header {name} is {further!r}: RabbitMQ takes a list of routing keys")
        keys += [key for key in cast("Sequence[object]", further) if isinstance(key, str)]
    return tuple(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a message reaches the queues it does; `str()` of it is the same for people.

    Attributes:
        exchange: where the message was published.
        routing_key: its key.
        visits: every exchange it came through, with the bindings that took it and those that did not.
        queue_names: the queues reached.
        decision: how a task's route was found, when that was given.
    """

    exchange: str
    routing_key: str
    visits: tuple[Visit, ...]
    queue_names: tuple[str, ...]
    decision: Decision | None = None

    @property
    def is_exact(self) -> bool:
        """Every queue gets the message; otherwise a consistent-hash exchange picks among some."""
        return not any(visit.is_choice for visit in self.visits)

    def __str__(self) -> str:
        lines = [*(self.decision.lines() if self.decision else ())]
        lines.append(f"published to {_named(self.exchange)} with key {self.routing_key!r}")
        for visit in self.visits:
            lines += _visit_lines(visit, self.routing_key)
        lines.append(_outcome(self))
        return "\n".join(lines)


def explain(
    topology: Topology,
    exchange: str,
    routing_key: str,
    headers: Mapping[str, TableValue] | None = None,
    *,
    decision: Decision | None = None,
) -> Explanation:
    """Why a message reaches the queues it does; `decision` (of `Router.decide`) tells about the route as well.

    Raises:
        UnknownExchange, PublishRefused: as `resolve`.
    """
    visits = tuple(_visits(topology, exchange, routing_key, headers or {}))
    return Explanation(
        exchange=exchange,
        routing_key=routing_key,
        visits=visits,
        queue_names=queues_of(visits),
        decision=decision,
    )


def _named(exchange: str) -> str:
    return f"exchange {exchange!r}" if exchange else "the default exchange"


def _visit_lines(visit: Visit, routing_key: str) -> Iterator[str]:
    title = f"{_named(visit.exchange.name)} ({visit.exchange.type})"
    if visit.reached_from is not None:
        how = "as the alternate of" if visit.is_alternate else "from"
        title += f", {how} {_named(visit.reached_from)}"
    yield title
    if visit.exchange.name == DEFAULT_EXCHANGE:
        yield from _default_exchange_lines(visit, routing_key)
        return
    verb = "may be chosen" if visit.is_choice else "matches"
    for binding in visit.matched:
        yield f"  + {verb}: {_condition(binding)} -> {binding.destination_kind} {binding.destination!r}"
    for binding in visit.unmatched:
        yield f"  - does not match: {_condition(binding)} -> {binding.destination_kind} {binding.destination!r}"
    if not visit.matched:
        yield _nothing_matched(visit)


def _default_exchange_lines(visit: Visit, routing_key: str) -> Iterator[str]:
    for name in visit.queue_names:
        yield f"  + the key names queue {name!r}"
    if not visit.queue_names:
        yield f"  - no queue is called {routing_key!r}"


def _condition(binding: Binding) -> str:
    arguments = f", arguments {binding.arguments}" if binding.arguments else ""
    return f"key {binding.routing_key!r}{arguments}"


def _nothing_matched(visit: Visit) -> str:
    why = "no binding matches" if visit.unmatched else "no bindings"
    return f"  {why}" + (
        f", so on to its alternate {visit.alternate!r}" if visit.alternate is not None else ""
    )


def _outcome(explanation: Explanation) -> str:
    if not explanation.queue_names:
        return "reaches no queue: the broker returns it (mandatory) or drops it"
    how = "" if explanation.is_exact else " (of those behind a consistent hash only one)"
    return f"reaches {', '.join(repr(name) for name in explanation.queue_names)}{how}"
