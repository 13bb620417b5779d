"""What was declared through a transport, and which part of it a message needs that the broker has returned."""

from __future__ import annotations

from amqp_routing import Binding, Exchange, Queue, Topology
from amqp_tasks.transport.rabbitmq._topology import with_dead_letters

__all__ = ("Remembered",)


class Remembered:
    """Grows by a queue at a time, perhaps to thousands, so it is no `Topology`, which is checked as a whole. Owner thread only."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[Binding, None] = {}

    def add(self, topology: Topology) -> None:
        """Note what was declared; of two with one name the newer one counts."""
        self._exchanges.update((exchange.name, exchange) for exchange in topology.exchanges)
        self._queues.update((queue.name, queue) for queue in topology.queues)
        self._bindings.update(dict.fromkeys(topology.bindings))

    def related(self, exchange: str, routing_key: str) -> Topology | None:
        """What a message to `exchange` with `routing_key` needs; None when nothing is known of it.

        Raises:
            TopologyError: it is no whole topology.
        """
        if not exchange:
            queue = self._queues.get(routing_key)
            return None if queue is None else Topology(queues=with_dead_letters((queue,), self._queues.get))
        bindings = tuple(binding for binding in self._bindings if binding.source == exchange)
        ends = {binding.destination for binding in bindings}
        if exchange not in self._exchanges and not bindings:
            return None
        return Topology(
            exchanges=tuple(each for name, each in self._exchanges.items() if name in ends | {exchange}),
            queues=with_dead_letters(
                (each for name, each in self._queues.items() if name in ends), self._queues.get
            ),
            bindings=bindings,
        )
