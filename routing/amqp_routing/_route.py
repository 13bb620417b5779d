"""A route: the publish options that a router found for a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from amqp_routing._errors import RouteError
from amqp_routing._queue import Queue

__all__ = ("Route", "read_route")

PublishOption = Any
"""The value of a publish option; what is allowed is the sender's business."""

_DESTINATION = ("queue", "exchange", "routing_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Publish options that apply unless the call says otherwise. An empty route stops the search for one.

    Attributes:
        queue: the name of the queue to send to.
        exchange: the exchange to publish to instead.
        routing_key: the key to publish with.
        options: all further options, e.g. `{"priority": 9}`.
    """

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    options: Mapping[str, PublishOption] = field(default_factory=dict[str, PublishOption])

    def merged_into(self, options: Mapping[str, PublishOption]) -> dict[str, PublishOption]:
        """The options of a call completed by this route; what the call gives wins, and `None` counts as not given.

        A destination is taken as a whole: a call that names a queue gets neither exchange nor key of the route, one
        that names an exchange not the route's queue. (In Celery the route's exchange and key would win there.)
        """
        given = {key: value for key, value in options.items() if value is not None}
        mine = {
            "queue": self.queue,
            "exchange": self.exchange,
            "routing_key": self.routing_key,
            **self.options,
        }
        if "queue" in given:
            mine |= {"exchange": None, "routing_key": None}
        elif "exchange" in given:
            mine["queue"] = None
        return {**options, **{key: value for key, value in mine.items() if value is not None}, **given}


def read_route(value: object, *, origin: str) -> tuple[Route, Queue | None]:
    """The route that a configured value or a router's answer means, and its queue where that is an object.

    Text names a queue; a mapping holds publish options; a `Queue` is one to send to.

    Raises:
        RouteError: it is something else.
    """
    match value:
        case Route():
            return value, None
        case str():
            return Route(queue=value or None), None
        case Queue():
            return Route(queue=value.name), value
        case Mapping():
            return _route_of_options(cast("Mapping[object, object]", value), origin=origin)
        case _:
            raise RouteError(
                f"{origin}: {value!r} is no route; expected a queue's name or publish options "
                "such as {'queue': 'mail', 'priority': 5}"
            )


def _route_of_options(given: Mapping[object, object], *, origin: str) -> tuple[Route, Queue | None]:
    options: dict[str, object] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise RouteError(f"{origin}: publish option {key!r} is not text")
        options[key] = value
    queue = options.get("queue")
    if isinstance(queue, Queue):
        options["queue"] = queue.name
    named = {key: _text(options.pop(key, None), key, origin=origin) for key in _DESTINATION}
    return Route(**named, options=options), queue if isinstance(queue, Queue) else None


def _text(value: object, option: str, *, origin: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    hint = " or a Queue" if option == "queue" else ""
    raise RouteError(f"{origin}: {option} is {value!r}, expected a name{hint}")
