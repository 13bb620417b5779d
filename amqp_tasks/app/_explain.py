"""Why a call goes where it goes: the options that count, the routers that were asked, the bindings that match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_routing import Explanation, explain
from amqp_tasks.app._destination import Destinations

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("CallExplanation", "explain_call")

_WHERE = ("queue", "exchange", "routing_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallExplanation:
    """`str()` of it is the same for people.

    Attributes:
        call_options: what the call says about its destination; wins over all others.
        task_options: what the task says; wins over its route.
        explanation: the routers, and the way from the exchange to the queues.
    """

    call_options: Mapping[str, Any]
    task_options: Mapping[str, Any]
    explanation: Explanation

    def __str__(self) -> str:
        lines: list[str] = []
        if self.call_options:
            lines.append(f"the call says {_shown(self.call_options)}, which wins over task and route")
        if self.task_options:
            lines.append(f"the task says {_shown(self.task_options)}, which wins over its route")
        return "\n".join([*lines, str(self.explanation)])


def explain_call(
    app: App,
    task_name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> CallExplanation:
    """Where `send_task(task_name, args, kwargs, **options)` would go, and why. Sends and declares nothing.

    Raises:
        UnknownQueue: it goes to a queue that is not configured and may not be created.
        ConfigurationError: options that exclude each other.
        RoutingError: an unknown exchange, or a router that answers with no route.
    """
    task = app.calls.named(task_name)
    own = {name: value for name in _WHERE if (value := getattr(task, name)) is not None}
    called = {name: value for name in _WHERE if (value := (options or {}).get(name)) is not None}
    resources = app.resources
    destinations = Destinations(
        resources.settings, resources.router, resources.topologies, resources.transport
    )
    _, destination = destinations.resolve(task_name, args, kwargs or {}, own, called)
    topology = app.topology
    if destination.queue_name:
        topology = topology.merged(app.topology_for([destination.queue_name]))
    decision = app.router.decide(task_name, tuple(args), dict(kwargs or {}), {**own, **called}, task=task)
    found = explain(topology, destination.exchange, destination.routing_key, decision=decision)
    return CallExplanation(call_options=called, task_options=own, explanation=found)


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
