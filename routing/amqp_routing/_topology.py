"""Exchanges, queues and bindings that fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from amqp_routing._binding import Binding
from amqp_routing._checks import topology_faults
from amqp_routing._declared import Declared
from amqp_routing._errors import TopologyError
from amqp_routing._exchange import PREDECLARED_EXCHANGES, Exchange
from amqp_routing._queue import Queue
from amqp_routing._walk import Parts

__all__ = ("Topology",)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Topology(Declared):
    """A validated set of exchanges, queues and bindings.

    Equal to another with the same members in any order. Equal values given twice count once. The exchanges that a virtual host has from the start ("" and `amq.*`) are
    always known and need not be given.

    Raises:
        TopologyError: the values do not fit together; all faults are listed.
    """

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    parts: Parts = field(init=False, repr=False, compare=False)
    """The same by name, as `resolve` and the checks look at it."""

    def __post_init__(self) -> None:
        consumer_clashes = tuple(_consumer_clashes(self.queues))
        exchanges, queues = _distinct(self.exchanges), _distinct(self.queues)
        object.__setattr__(self, "exchanges", exchanges)
        object.__setattr__(self, "queues", queues)
        object.__setattr__(self, "bindings", _distinct(self.bindings))
        named = {exchange.name: exchange for exchange in exchanges}
        parts = Parts.of(
            {**PREDECLARED_EXCHANGES, **named}, {queue.name: queue for queue in queues}, self.bindings
        )
        object.__setattr__(self, "parts", parts)
        faults = (*consumer_clashes, *self._faults())
        if faults:
            raise TopologyError(faults)

    def _faults(self) -> Iterator[str]:
        yield from _clashes("exchange", self.exchanges)
        yield from _clashes("queue", self.queues)
        yield from topology_faults(self.parts)

    def _declaration(self) -> tuple[object, ...]:
        return frozenset(self.exchanges), frozenset(self.queues), frozenset(self.bindings)

    def queue(self, name: str) -> Queue | None:
        """The queue of that name."""
        return self.parts.queues.get(name)

    def exchange(self, name: str) -> Exchange | None:
        """The exchange of that name, the broker's own included."""
        return self.parts.exchanges.get(name)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The names of all queues, in the order given."""
        return tuple(queue.name for queue in self.queues)

    def merged(self, other: Topology) -> Topology:
        """Both together; what both hold alike counts once.

        Raises:
            TopologyError: they declare something differently.
        """
        return Topology(
            exchanges=self.exchanges + other.exchanges,
            queues=self.queues + other.queues,
            bindings=self.bindings + other.bindings,
        )


V = TypeVar("V")


def _distinct(values: Iterable[V]) -> tuple[V, ...]:
    return tuple(dict.fromkeys(values))


def _clashes(kind: str, values: Iterable[N]) -> Iterator[str]:
    seen: dict[str, N] = {}
    for value in values:
        if seen.setdefault(value.name, value) is not value:
            yield f"{kind} {value.name!r} is declared twice and differently: {seen[value.name]} and {value}; keep one"


def _consumer_clashes(queues: Iterable[Queue]) -> Iterator[str]:
    """Queues that are declared alike but consumed differently: keeping one would lose the other silently."""
    seen: dict[Queue, Queue] = {}
    for queue in queues:
        if seen.setdefault(queue, queue).consumer_arguments != queue.consumer_arguments:
            yield f"queue {queue.name!r} is given twice with different consumer_arguments; keep one"
