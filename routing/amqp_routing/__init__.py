"""AMQP topology and routes as values: what to declare, and where a message goes. No I/O.

Names are imported when they are first used, so that whoever needs the errors only pays for no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqp_routing._binding import Binding, DestinationKind
    from amqp_routing._declare import Declarer, declare
    from amqp_routing._errors import (
        ConversionError,
        DeclarationError,
        FactualError,
        PublishRefused,
        RouteError,
        RoutingError,
        TopologyError,
        UnknownExchange,
    )
    from amqp_routing._exchange import DEFAULT_EXCHANGE, PREDECLARED_EXCHANGES, Exchange, ExchangeType
    from amqp_routing._graph import GraphFormat, graph
    from amqp_routing._kombu import (
        exchange_from_kombu,
        exchange_to_kombu,
        parts_from_kombu,
        queue_from_kombu,
        queue_to_kombu,
        topology_from_kombu,
        topology_to_kombu,
    )
    from amqp_routing._match import headers_match, topic_matches
    from amqp_routing._policy import Policy, split_policies
    from amqp_routing._queue import Queue
    from amqp_routing._queue_arguments import DeadLetterStrategy, DelayedRetryType, Overflow, QueueType
    from amqp_routing._resolve import Explanation, explain, resolve
    from amqp_routing._route import Route
    from amqp_routing._router import Decision, Router, RouterCheck, RouterFunction, TaskRouter
    from amqp_routing._table import Table, TableValue
    from amqp_routing._topology import Topology
    from amqp_routing._walk import Visit

__all__ = (
    "DEFAULT_EXCHANGE",
    "PREDECLARED_EXCHANGES",
    "Binding",
    "ConversionError",
    "DeadLetterStrategy",
    "Decision",
    "DeclarationError",
    "Declarer",
    "DelayedRetryType",
    "DestinationKind",
    "Exchange",
    "ExchangeType",
    "Explanation",
    "FactualError",
    "GraphFormat",
    "Overflow",
    "Policy",
    "PublishRefused",
    "Queue",
    "QueueType",
    "Route",
    "RouteError",
    "Router",
    "RouterCheck",
    "RouterFunction",
    "RoutingError",
    "Table",
    "TableValue",
    "TaskRouter",
    "Topology",
    "TopologyError",
    "UnknownExchange",
    "Visit",
    "declare",
    "exchange_from_kombu",
    "exchange_to_kombu",
    "explain",
    "graph",
    "headers_match",
    "parts_from_kombu",
    "queue_from_kombu",
    "queue_to_kombu",
    "resolve",
    "split_policies",
    "topic_matches",
    "topology_from_kombu",
    "topology_to_kombu",
)

_PARTS = (
    "_errors", "_binding", "_declare", "_exchange", "_graph", "_kombu", "_match", "_policy", "_queue",
    "_queue_arguments", "_resolve", "_route", "_router", "_table", "_topology", "_walk",
)  # fmt: skip


if not TYPE_CHECKING:  # for type checkers a module with `__getattr__` has every name

    def __getattr__(name: str) -> Any:
        for part in _PARTS if name in __all__ else ():
            module = import_module(f"{__name__}.{part}")
            if name in module.__all__:
                globals()[name] = getattr(module, name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
