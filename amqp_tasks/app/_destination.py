"""Where a call goes: the options of call and task, the routes and the defaults, down to exchange and routing key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from amqp_routing import ExchangeType
from amqp_tasks.app._options import check_call_options, check_destination, check_message_options
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import DEAD_SUFFIX
from amqp_tasks.transport import TopologyMode

if TYPE_CHECKING:
    from amqp_routing import Route, Router, Topology
    from amqp_tasks.app._topology import Topologies
    from amqp_tasks.settings import Settings
    from amqp_tasks.transport import Transport

__all__ = ("Destination", "Destinations", "check_routes")

_SHARED = (ExchangeType.TOPIC, ExchangeType.FANOUT)
"""Types that take the key of a queue's binding to that queue, and to the others that are meant with it."""

_WHERE = ("queue", "exchange", "routing_key")


class Destination(NamedTuple):
    """Exchange and routing key; `queue_name` when the call meant a queue, else empty."""

    exchange: str
    routing_key: str
    queue_name: str

    @property
    def options(self) -> dict[str, str]:
        """Options of a call that goes there."""
        if self.queue_name:
            return {"queue": self.queue_name}
        return {"exchange": self.exchange, "routing_key": self.routing_key}


class Destinations:
    """Destinations of one app; remembers what it has declared. Thread safety: any thread."""

    def __init__(
        self, settings: Settings, router: Router, topologies: Topologies, transport: Transport
    ) -> None:
        self._router, self._topologies, self._transport = router, topologies, transport
        self._default_queue = settings.task.default_queue
        self._default_routing_key = settings.task.default_routing_key
        # Without routes the destination of a task never changes, so that callers may keep it.
        self.is_static = not settings.task.routes
        self._mode = TopologyMode(settings.app.topology)
        # Queues (or "exchange/…") that are there. Any thread adds; a race only declares twice.
        self._ready: set[str] = set()
        # Destinations that the settings know, there or not; likewise.
        self._sound: set[Destination] = set()

    def resolve(
        self,
        task_name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        task_options: Mapping[str, Any],
        call_options: Mapping[str, Any],
        *,
        asks_routes: bool = True,
    ) -> tuple[dict[str, Any], Destination]:
        """All options of a call, and where it goes. The call wins over the task, the task over its route.

        A `queue` from above replaces an exchange from below, and the other way round; a lone `routing_key` from above
        is used with the exchange from below.
        """
        merged: dict[str, Any] = {}
        if asks_routes and not self.is_static:
            explicit = {**task_options, **call_options}
            route = self._router.route(task_name, tuple(args), dict(kwargs), explicit)
            merged = _route_options(route)
        return self._laid_over(merged, task_options, call_options)

    def check(self, task_options: Mapping[str, Any], call_options: Mapping[str, Any]) -> dict[str, Any]:
        """What call and task say of a call that somebody else sends later. Nothing is declared, and no route is asked: it may go by
        arguments that are not known yet.

        Raises:
            ConfigurationError: they lead nowhere.
            UnknownQueue: the queue is not configured and may not be created.
        """
        merged, destination = self._laid_over({}, task_options, call_options)
        if destination not in self._sound:
            self._topology(destination)
            self._sound.add(destination)
        return merged

    def _laid_over(
        self, merged: dict[str, Any], *layers: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Destination]:
        for layer in layers:
            _overlay(merged, layer)
        return merged, self._destination(merged)

    def _topology(self, destination: Destination) -> Topology:
        if destination.queue_name:
            return self._topologies.for_queues([destination.queue_name])
        return self._topologies.around(destination.exchange)

    def _destination(self, options: Mapping[str, Any]) -> Destination:
        queue_name, exchange, routing_key = (options.get(part) for part in _WHERE)
        if exchange is not None:
            key = routing_key if routing_key is not None else self._default_routing_key
            return Destination(exchange, key or "", "")
        name = str(queue_name or self._default_queue)
        if name.endswith(DEAD_SUFFIX):
            self._topologies.refuse_dead_letters(name)
        return self._of_queue(name, routing_key if queue_name is None else None)

    def _of_queue(self, name: str, routing_key: str | None) -> Destination:
        binding = self._topologies.binding_of(name)
        if binding is None:
            return Destination("", routing_key if routing_key is not None else name, name)
        if routing_key is not None:
            return Destination(binding.source, routing_key, "")
        exchange = self._topologies.for_queues([name]).exchange(binding.source)
        if exchange is not None and exchange.type in _SHARED:
            return Destination(binding.source, binding.routing_key, name)
        # Every queue is bound to the default exchange by its name: the shortest way, and how stock clients do it. By a
        # headers exchange the key leads nowhere, and by a consistent hash to any of the queues.
        return Destination("", name, name)

    def is_ready(self, destination: Destination) -> bool:
        """Whether its queue is known to be there."""
        return (destination.queue_name or f"exchange/{destination.exchange}") in self._ready

    def make_ready(self, destination: Destination, *, timeout: float) -> None:
        """Declare or check what the destination needs; remembered for the life of the app.

        Raises:
            UnknownQueue: the queue is not configured and may not be created.
            TopologyMismatch: the broker holds it with other arguments.
            BrokerConnectionError: not within `timeout`.
        """
        topology = self._topology(destination)
        if self._mode is not TopologyMode.NONE:
            self._transport.ensure_topology(topology, mode=self._mode, timeout=timeout)
        self._ready.add(destination.queue_name or f"exchange/{destination.exchange}")


def _overlay(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    check_destination(layer.get("queue"), layer.get("exchange"))
    if layer.get("queue") is not None:
        merged.pop("exchange", None)
        merged.pop("routing_key", None)
    elif layer.get("exchange") is not None:
        merged.pop("queue", None)
        merged.pop("routing_key", None)
    elif layer.get("routing_key") is not None and merged.get("exchange") is None:
        merged.pop("queue", None)
    merged.update((name, value) for name, value in layer.items() if value is not None)


def check_routes(router: Router) -> None:
    """Refuse routes of maps and pairs that no call could take. What functions will answer is not known beforehand.

    Raises:
        ConfigurationError: unknown options, values that cannot be, a queue together with an exchange; all at once.
    """
    faults: list[str] = []
    for place, route in router.routes:
        try:
            check_message_options(_checked(route), "call option:")
        except ConfigurationError as exc:
            faults.append(f"task_{place}: {exc}")
    if faults:
        raise ConfigurationError("; ".join(faults))


def _route_options(route: Route | None) -> dict[str, Any]:
    if route is None:
        return {}
    try:
        found = _checked(route)
    except ConfigurationError as exc:
        raise ConfigurationError(f"task_routes: {exc}") from exc
    return {name: value for name, value in found.items() if value is not None}


def _checked(route: Route) -> dict[str, Any]:
    found = {
        "queue": route.queue,
        "exchange": route.exchange,
        "routing_key": route.routing_key,
        **route.options,
    }
    check_call_options(found)
    check_destination(route.queue, route.exchange)
    return found
