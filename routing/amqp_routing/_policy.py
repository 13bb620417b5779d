"""Policies instead of arguments: what may change later without deleting a queue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amqp_routing._exchange import Exchange
from amqp_routing._queue import Queue
from amqp_routing._queue_arguments import ARGUMENT_OF_FIELD
from amqp_routing._table import TableValue
from amqp_routing._topology import Topology

__all__ = ("Policy", "split_policies")

# Not max_priority and single_active_consumer, which RabbitMQ takes as arguments only; not consumer_timeout, which it
# refuses in a policy before 3.12.
_POLICY_FIELDS = (
    "dead_letter_exchange",
    "dead_letter_routing_key",
    "dead_letter_strategy",
    "delivery_limit",
    "message_ttl",
    "expires",
    "max_length",
    "max_length_bytes",
    "overflow",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy for one queue or exchange.

    Of the policies that match a queue RabbitMQ applies only the one of highest priority: keep this one above those of
    your own that match the same names.

    Attributes:
        name: `queue.<name>` or `exchange.<name>`.
        pattern: the regular expression that matches this one name.
        apply_to: `queues` or `exchanges`.
        definition: the keys and values, without `x-`.
        priority: among policies.
    """

    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, TableValue]
    priority: int = 0

    def document(self) -> dict[str, Any]:
        """The body of `PUT /api/policies/<virtual host>/<name>` of the management API."""
        return {
            "pattern": self.pattern,
            "apply-to": self.apply_to,
            "definition": dict(self.definition),
            "priority": self.priority,
        }

    def arguments(self) -> tuple[str, ...]:
        """The arguments of `rabbitmqctl` that set it; add `-p <virtual host>`."""
        options = ("--priority", str(self.priority), "--apply-to", self.apply_to)
        return ("set_policy", *options, self.name, self.pattern, json.dumps(dict(self.definition)))


def split_policies(topology: Topology, *, priority: int = 0) -> tuple[Topology, tuple[Policy, ...]]:
    """The same topology without the arguments that policies can give, and the policies that give them.

    Queues declared so can be changed later by changing a policy; queues declared with arguments cannot. What feeds an
    internal exchange stays an argument: without it the bare topology would have queues that nothing reaches.

    See: https://www.rabbitmq.com/docs/policies.
    """
    policies = (*_queue_policies(topology, priority), *_exchange_policies(topology, priority))
    bare = Topology(
        exchanges=tuple(
            replace(each, alternate_exchange=_kept(topology, each)) for each in topology.exchanges
        ),
        queues=tuple(_bare(topology, queue) for queue in topology.queues),
        bindings=topology.bindings,
    )
    return bare, policies


def _is_internal(topology: Topology, exchange_name: str | None) -> bool:
    exchange = None if exchange_name is None else topology.exchange(exchange_name)
    return exchange is not None and exchange.internal


def _kept(topology: Topology, exchange: Exchange) -> str | None:
    return exchange.alternate_exchange if _is_internal(topology, exchange.alternate_exchange) else None


def _policy_fields(topology: Topology, queue: Queue) -> tuple[str, ...]:
    if not _is_internal(topology, queue.dead_letter_exchange):
        return _POLICY_FIELDS
    # At-least-once dead-lettering needs its overflow beside it.
    return tuple(
        name for name in _POLICY_FIELDS if name != "overflow" and not name.startswith("dead_letter_")
    )


def _bare(topology: Topology, queue: Queue) -> Queue:
    nothing: dict[str, Any] = dict.fromkeys(_policy_fields(topology, queue))
    return replace(queue, **nothing)


def _queue_policies(topology: Topology, priority: int) -> Iterator[Policy]:
    for queue in topology.queues:
        definition = {
            ARGUMENT_OF_FIELD[name].name.removeprefix("x-"): ARGUMENT_OF_FIELD[name].encode(
                getattr(queue, name)
            )
            for name in _policy_fields(topology, queue)
            if getattr(queue, name) is not None
        }
        if definition:
            yield _policy("queue", queue, definition, priority)


def _exchange_policies(topology: Topology, priority: int) -> Iterator[Policy]:
    for exchange in topology.exchanges:
        alternate = exchange.alternate_exchange
        if alternate is not None and not _is_internal(topology, alternate):
            yield _policy("exchange", exchange, {"alternate-exchange": alternate}, priority)


def _policy(kind: str, subject: Queue | Exchange, definition: dict[str, TableValue], priority: int) -> Policy:
    return Policy(
        name=f"{kind}.{subject.name}",
        pattern=f"^{re.escape(subject.name)}$",
        apply_to=f"{kind}s",
        definition=definition,
        priority=priority,
    )
