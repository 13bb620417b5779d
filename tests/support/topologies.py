"""Random topologies and messages for hypothesis, dense enough that most messages match something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from amqp_routing import (
    Binding,
    DestinationKind,
    Exchange,
    ExchangeType,
    Queue,
    QueueType,
    Topology,
    TopologyError,
)

__all__ = (
    "EXCHANGE_NAMES",
    "QUEUE_NAMES",
    "Message",
    "header_values",
    "messages",
    "routing_keys",
    "topic_patterns",
    "topologies",
)

QUEUE_NAMES = ("a", "b", "a.b", "*")
EXCHANGE_NAMES = ("e0", "e1", "e2", "e3", "e4")

_TYPES = (ExchangeType.DIRECT, ExchangeType.TOPIC, ExchangeType.FANOUT, ExchangeType.HEADERS)
_HEADER_NAMES = ("h", "k", "x-h", "x-k")

routing_keys = st.lists(st.sampled_from(("a", "b", "", "*", "#", "ab")), max_size=4).map(".".join)
topic_patterns = st.lists(st.sampled_from(("a", "b", "", "*", "#", "a*")), max_size=5).map(".".join)
# No floats: pika cannot write them. No bytes: RabbitMQ 4 takes them for the same text, RabbitMQ 3 does not.
header_values = st.sampled_from((None, True, False, 1, 0, 2**40, -1, "", "1", "a"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What routing looks at."""

    exchange: str
    routing_key: str
    headers: dict[str, Any]


_headers = st.dictionaries(st.sampled_from(_HEADER_NAMES), header_values, max_size=3)
_copies = st.one_of(st.none(), st.lists(routing_keys, max_size=2))


@st.composite
def messages(draw: st.DrawFn, topology: Topology) -> Message:
    """A message to one of the topology's exchanges that clients may publish to."""
    names = ["", *(exchange.name for exchange in topology.exchanges if not exchange.internal)]
    headers: dict[str, Any] = draw(_headers)
    for name in ("CC", "BCC"):
        copies = draw(_copies) if draw(st.integers(0, 7)) == 0 else None
        if copies is not None:
            headers[name] = copies
    return Message(exchange=draw(st.sampled_from(names)), routing_key=draw(routing_keys), headers=headers)


@st.composite
def _bindings(draw: st.DrawFn, exchanges: tuple[Exchange, ...]) -> Binding:
    source = draw(st.sampled_from(exchanges))
    leads_on = draw(st.integers(0, 2)) == 0
    arguments: dict[str, Any] = {}
    if source.type is ExchangeType.HEADERS:
        arguments = draw(_headers)
        kind = draw(st.sampled_from((None, "all", "any", "all-with-x", "any-with-x")))
        if kind is not None:
            arguments["x-match"] = kind
    return Binding(
        source.name,
        draw(st.sampled_from(exchanges)).name if leads_on else draw(st.sampled_from(QUEUE_NAMES)),
        destination_kind=DestinationKind.EXCHANGE if leads_on else DestinationKind.QUEUE,
        routing_key=draw(topic_patterns),
        arguments=arguments,
    )


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Some exchanges of every type, bound to queues and to each other, circles included."""
    names = EXCHANGE_NAMES[: draw(st.integers(1, len(EXCHANGE_NAMES)))]
    alternates = st.one_of(st.none(), st.sampled_from(names))
    exchanges = tuple(
        Exchange(
            name,
            type=draw(st.sampled_from(_TYPES)),
            internal=draw(st.integers(0, 3)) == 0,
            alternate_exchange=draw(alternates),
        )
        for name in names
    )
    queues = tuple(Queue(name, type=QueueType.CLASSIC) for name in QUEUE_NAMES)
    bindings = tuple(draw(st.lists(_bindings(exchanges), max_size=14)))
    return _mended(exchanges, queues, bindings)


def _mended(
    exchanges: tuple[Exchange, ...], queues: tuple[Queue, ...], bindings: tuple[Binding, ...]
) -> Topology:
    """The topology, without what may make it invalid: `any` over nothing, and what nothing feeds."""
    compared = tuple(
        replace(b, arguments={**b.arguments, "h": None}) if "any" in str(b.arguments.get("x-match")) else b
        for b in bindings
    )
    try:
        return Topology(exchanges=exchanges, queues=queues, bindings=compared)
    except TopologyError:
        fed = tuple(replace(exchange, internal=False) for exchange in exchanges)
        return Topology(exchanges=fed, queues=queues, bindings=compared)
