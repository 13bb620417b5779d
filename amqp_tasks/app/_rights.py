"""Which rights at the broker a caller or a worker of this app needs: what `amqp-tasks check` asks for, and the docs' table.

The queues are taken to be there, as `amqp-tasks topology apply` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from amqp_routing import DestinationKind
from amqp_tasks.app._destination import Destinations
from amqp_tasks.backends.rpc import REPLY_PREFIX, new_reply_name
from amqp_tasks.events import EVENTS_NAME
from amqp_tasks.message import JOIN_PREFIX, JOURNAL_NAME, RATE_PREFIX, new_task_id
from amqp_tasks.transport import Permission, Right, TopologyMode
from amqp_tasks.transport._delay import WHEEL_PREFIX
from amqp_tasks.transport._rights import DEFAULT_EXCHANGE, rights_to_bind, rights_to_delay

if TYPE_CHECKING:
    from amqp_routing import Binding
    from amqp_tasks.app._app import App
    from amqp_tasks.app._destination import Destination

__all__ = ("Need", "Role", "Use", "least_patterns", "needs_of")

_FAMILIES = (REPLY_PREFIX, WHEEL_PREFIX, JOIN_PREFIX, RATE_PREFIX)
"""Beginnings of names of which there are many, that come and go: one stands for all."""
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")


class Role(StrEnum):
    """Who uses the broker."""

    PRODUCER = "producer"
    WORKER = "worker"


class Use(StrEnum):
    """What not every app has a use for. Chords delay, too."""

    RESULTS = "results"
    DELAYS = "delays"
    CHORDS = "chords"
    EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Permission for what one pattern stands for.

    Attributes:
        purpose: what it is for, in words.
        permission: configure, write or read.
        pattern: a regular expression, without the marks of its ends.
        rights: what to ask the broker for.
    """

    purpose: str
    permission: Permission
    pattern: str
    rights: tuple[Right, ...]


def needs_of(
    app: App, role: Role, queue_names: Sequence[str], *, without: Collection[Use] = ()
) -> tuple[Need, ...]:
    """What a role needs, each permission and pattern once.

    Args:
        app: whose settings count.
        role: producer or worker.
        queue_names: those it sends to, or consumes.
        without: what it is not used for.

    Raises:
        UnknownQueue: one is neither configured nor may be created.
        ConfigurationError: one holds dead letters.
    """
    wanted = set(Use) - set(without)
    if app.settings.result.backend is None:
        wanted.discard(Use.RESULTS)
    found = (_of_producer if role is Role.PRODUCER else _of_worker)(app, queue_names, wanted)
    purposes: dict[tuple[Permission, str], str] = {}
    asked: dict[tuple[Permission, str], dict[Right, None]] = {}
    for purpose, rights in found:
        for right in rights:
            key = right.permission, _pattern(right.name)
            purposes.setdefault(key, purpose)
            asked.setdefault(key, {})[right] = None
    return tuple(
        Need(purpose=purposes[key], permission=key[0], pattern=key[1], rights=tuple(rights))
        for key, rights in asked.items()
    )


def least_patterns(needs: Iterable[Need]) -> dict[Permission, str]:
    """The three patterns that permit this and nothing else, for `rabbitmqctl set_permissions`."""
    needs = tuple(needs)
    return {
        permission: _one_of({need.pattern for need in needs if need.permission is permission})
        for permission in Permission
    }


def _of_producer(
    app: App, queue_names: Sequence[str], wanted: set[Use]
) -> Iterator[tuple[str, Iterable[Right]]]:
    places = _places(app, queue_names)
    yield "send tasks", [_write(place.exchange or DEFAULT_EXCHANGE) for place in places]
    yield "bind queues to their exchanges", _to_bind(app, app.topology.bindings)
    if Use.RESULTS in wanted:
        reply = new_reply_name()
        yield (
            "have a queue for results",
            [_queue(Permission.CONFIGURE, reply), _queue(Permission.READ, reply)],
        )
    if Use.CHORDS in wanted:
        yield "make the queues of chords", [_queue(Permission.CONFIGURE, _join_name())]
        yield "send what makes chords", [_write(DEFAULT_EXCHANGE)]
    if wanted & {Use.DELAYS, Use.CHORDS}:
        for place in places:
            yield "delay tasks", rights_to_delay(place.exchange, place.routing_key)


def _of_worker(
    app: App, queue_names: Sequence[str], wanted: set[Use]
) -> Iterator[tuple[str, Iterable[Right]]]:
    yield "consume tasks", [_queue(Permission.READ, name) for name in queue_names]
    yield "send results, retries and dead letters", [_write(DEFAULT_EXCHANGE)]
    yield "follow the journal", [_queue(Permission.READ, JOURNAL_NAME)]
    yield "bind queues to their exchanges", _to_bind(app, app.topology_for(queue_names).bindings)
    if Use.EVENTS in wanted:
        yield "tell of progress and dead letters", [_write(EVENTS_NAME)]
    if Use.CHORDS in wanted:
        join = _join_name()
        yield "make and delete the queues of chords", [_queue(Permission.CONFIGURE, join)]
        yield "read the queues of chords", [_queue(Permission.READ, join)]
    limited = [name for name, task in app.tasks.items() if task.cluster_rate_limit]
    if limited:
        tokens = f"{RATE_PREFIX}{limited[0]}"
        yield "make the tokens of cluster_rate_limit", [_queue(Permission.CONFIGURE, tokens)]
        yield "read the tokens of cluster_rate_limit", [_queue(Permission.READ, tokens)]
    if wanted & {Use.DELAYS, Use.CHORDS}:
        for name in queue_names:
            # A retry goes straight to the queue that the task came from, and so does the watch of a chord.
            yield "delay retries", rights_to_delay("", name)


def _places(app: App, queue_names: Sequence[str]) -> tuple[Destination, ...]:
    """Where calls for these queues go, and those that a route or a task sends to an exchange."""
    resources = app.resources
    destinations = Destinations(
        resources.settings, resources.router, resources.topologies, resources.transport
    )
    named = [each for _, each in resources.router.routes] + list(app.tasks.values())
    options = [{"queue": name} for name in queue_names]
    options += [
        {"exchange": each.exchange, "routing_key": each.routing_key or ""}
        for each in named
        if each.exchange is not None
    ]
    found = (destinations.resolve("", (), {}, {}, each, asks_routes=False)[1] for each in options)
    return tuple(dict.fromkeys(found))


def _to_bind(app: App, bindings: Iterable[Binding]) -> Iterable[Right]:
    """Bindings are made whether they are there or not; with other modes by `amqp-tasks topology apply` only."""
    is_declared = TopologyMode(app.settings.app.topology) is TopologyMode.DECLARE
    return rights_to_bind(bindings) if is_declared else ()


def _join_name() -> str:
    return f"{JOIN_PREFIX}{new_task_id()}"


def _queue(permission: Permission, name: str) -> Right:
    return Right(permission, DestinationKind.QUEUE, name)


def _write(exchange: str) -> Right:
    return Right(Permission.WRITE, DestinationKind.EXCHANGE, exchange)


def _pattern(name: str) -> str:
    for family in _FAMILIES:
        if name.startswith(family):
            return f"{_SPECIAL.sub(_escaped, family)}.*"
    return _SPECIAL.sub(_escaped, name)


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _one_of(patterns: Collection[str]) -> str:
    several = "|".join(sorted(patterns))
    return f"^({several})$" if len(patterns) > 1 else f"^{several}$"
