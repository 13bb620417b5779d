"""The app's queues, exchanges and bindings, made from its settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

from amqp_routing import Binding, DestinationKind, Exchange, ExchangeType, Queue, QueueType, Topology
from amqp_tasks.errors import ConfigurationError, UnknownQueue
from amqp_tasks.events import events_exchange
from amqp_tasks.message import (
    DEAD_SUFFIX,
    account_queue,
    dead_letter_queue_name,
    delayed_queue,
    journal_queue,
)

if TYPE_CHECKING:
    from amqp_routing import Router
    from amqp_tasks.settings import Settings

__all__ = ("Topologies", "dead_letters_held")

Part: TypeAlias = "Queue | Exchange | Binding"

_QUEUE_FIELDS = frozenset(field.name for field in fields(Queue)) - {"name"}
_BINDING_FIELDS = frozenset({"exchange", "exchange_type", "routing_key", "binding_key"})


class Topologies:
    """What to declare, as a whole (`with_shared`: and the journal and the events of all apps) and for single queues. Immutable; built anew when the settings change.

    Every task queue gets a `<queue>.dead` beside it for what workers set aside (`task_dead_letter_queues`), and for what
    the broker dead-letters, unless the queue names a dead-letter exchange itself.
    """

    def __init__(self, settings: Settings, router: Router) -> None:
        self._settings, self._routed = settings, router.queue_names
        parts = list(self._configured(settings.task.queues))
        for queue in router.queues:
            parts += self._equipped(queue)
        named = {part.name for part in parts if isinstance(part, Queue)}
        if settings.task.default_queue not in named:
            parts += self._default()
            named.add(settings.task.default_queue)
        if settings.task.create_missing_queues:
            for name in router.queue_names:
                if name not in named:
                    parts += self._created(name)
        self.whole = _assembled(parts)
        for name in router.queue_names:
            self.refuse_dead_letters(name)
        index = (delayed_queue(),) if settings.task.delayed_index else ()
        streams = (journal_queue(settings.worker.journal_max_age), account_queue(), *index)
        self.with_shared = self.whole.merged(Topology(exchanges=(events_exchange(),), queues=streams))

    def for_queues(self, names: Iterable[str]) -> Topology:
        """What the queues `names` need: themselves, their dead-letter queues, exchanges and bindings.

        Raises:
            UnknownQueue: one is neither configured nor may be created.
        """
        found = Topology()
        for name in names:
            found = found.merged(self._part(name))
        return found

    def for_migration(self, name: str, to_type: QueueType | None = None) -> Topology:
        """What a queue is to be, with what it needs; a dead-letter queue, too.

        Raises:
            UnknownQueue: it is not configured and may not be created.
            RoutingError: it cannot be of `to_type`.
        """
        task_queue = name.removesuffix(DEAD_SUFFIX)
        if task_queue != name:
            part = Topology(queues=(self.dead_letters_of(task_queue),))
        else:
            part = self._part(name)
        if to_type is None:
            return part
        queues = (self._of_type(queue, to_type) if queue.name == name else queue for queue in part.queues)
        return Topology(exchanges=part.exchanges, queues=tuple(queues), bindings=part.bindings)

    def _of_type(self, queue: Queue, kind: QueueType) -> Queue:
        """The same of another type, with the standard arguments of that type in place of those of its own."""
        limit, priority = self._settings.task.delivery_limit, self._settings.task.queue_max_priority
        changes: dict[str, Any] = {}
        if kind is QueueType.QUORUM:
            changes["delivery_limit"] = limit if queue.delivery_limit is None else queue.delivery_limit
            changes["max_priority"] = None if queue.max_priority == priority else queue.max_priority
        else:
            changes["delivery_limit"] = None
            changes["max_priority"] = priority if queue.max_priority is None else queue.max_priority
        return replace(queue, type=kind, **changes)

    def refuse_dead_letters(self, name: str) -> None:
        """Refuse calls to a queue that holds dead letters: they would lie there as such, and nobody would run them.

        Raises:
            ConfigurationError: it does.
        """
        task_queue = dead_letters_held(
            name, self.whole.queue_names, is_known=self.whole.queue(name) is not None
        )
        if task_queue is not None:
            raise ConfigurationError(
                f"queue {name!r} holds the dead letters of {task_queue!r}, which nobody runs: send to {task_queue!r}; if"
                f" {name!r} is a task queue, add it to task_queues"
            )

    def around(self, exchange_name: str) -> Topology:
        """What a publish to an exchange can reach, when the exchange is configured; else nothing."""
        if self.whole.exchange(exchange_name) is None or not exchange_name:
            return Topology()
        return self.whole

    def binding_of(self, queue_name: str) -> Binding | None:
        """The binding by which a configured queue hangs on its exchange; None: on the default exchange only."""
        return next((binding for binding in self.whole.bindings if _leads_to(binding, queue_name)), None)

    def dead_letters_of(self, name: str) -> Queue:
        """The dead-letter queue of a task queue, configured or not."""
        dead_name = dead_letter_queue_name(name)
        return self.whole.queue(dead_name) or _dead_queue(dead_name)

    def _part(self, name: str) -> Topology:
        queue = self.whole.queue(name)
        if queue is None:
            if not self._settings.task.create_missing_queues:
                raise self._unknown(name)
            return _assembled(self._created(name))
        dead = self.whole.queue(dead_letter_queue_name(name))
        bindings = [binding for binding in self.whole.bindings if _leads_to(binding, name)]
        queues = [queue] if dead is None else [queue, dead]
        exchanges = self._add_ways_onward(queues, bindings)
        return Topology(
            exchanges=tuple(exchange for exchange in self.whole.exchanges if exchange in exchanges),
            queues=tuple(queues),
            bindings=tuple(bindings),
        )

    def _add_ways_onward(self, queues: list[Queue], bindings: list[Binding]) -> list[Exchange]:
        """Add where dead letters of `queues` go, and what their exchanges cannot route, and so on: the lists grow.

        Returns:
            The exchanges of it all.
        """
        sources = {binding.source for binding in bindings}
        exchanges = [exchange for exchange in self.whole.exchanges if exchange.name in sources]
        pending: list[Queue | Exchange] = [*queues, *exchanges]
        for part in pending:
            if isinstance(part, Queue):
                name, key = part.dead_letter_exchange, part.dead_letter_routing_key
            else:
                name, key = part.alternate_exchange, None
            names = [key] if not name and key is not None else []
            if name:
                onward = [
                    each for each in self.whole.bindings if each.source == name and each not in bindings
                ]
                bindings += onward
                names = [each.destination for each in onward if _leads_to(each, each.destination)]
                exchange = self.whole.exchange(name)
                if exchange is not None and exchange not in exchanges:
                    exchanges.append(exchange)
                    pending.append(exchange)
            found = [each for each in map(self.whole.queue, names) if each is not None and each not in queues]
            queues += found
            pending += found
        return exchanges

    def _unknown(self, name: str) -> UnknownQueue:
        known = [queue for queue in self.whole.queue_names if not queue.endswith(DEAD_SUFFIX)]
        known.sort(key=lambda queue: SequenceMatcher(None, queue, name).ratio(), reverse=True)
        near = get_close_matches(name, known, n=1)
        hint = "add it to task_queues, or set task_create_missing_queues=True"
        if name in self._routed:
            hint = f"task_routes name it, but it is not declared: {hint}"
        elif near:
            hint = f"did you mean {near[0]!r}?"
        return UnknownQueue(name, known=tuple(known), hint=hint)

    def _created(self, name: str) -> Iterator[Part]:
        kind = QueueType(self._settings.task.create_missing_queue_type)
        return self._equipped(Queue(name, type=kind))

    def _default(self) -> Iterator[Part]:
        task = self._settings.task
        yield from self._equipped(Queue(task.default_queue, type=QueueType(task.default_queue_type)))
        if task.default_exchange:
            key = task.default_routing_key if task.default_routing_key is not None else task.default_queue
            yield Exchange(task.default_exchange, type=ExchangeType(task.default_exchange_type))
            yield Binding(task.default_exchange, task.default_queue, routing_key=key)

    def _configured(self, queues: Any) -> Iterator[Part]:
        if isinstance(queues, Mapping):
            for name, options in queues.items():  # pyright: ignore[reportUnknownVariableType]
                yield from self._from_options(str(name), options)  # pyright: ignore[reportUnknownArgumentType]
        else:
            for value in queues or ():
                yield from self._from_value(value)

    def _from_value(self, value: Any) -> Iterator[Part]:
        if isinstance(value, Queue):
            yield from self._equipped(value)
        elif isinstance(value, Exchange | Binding):
            yield value
        elif isinstance(value, str):
            yield from self._created(value)
        elif hasattr(value, "exchange"):
            yield from self._from_kombu(value)
        else:
            raise ConfigurationError(
                f"task_queues: {value!r:.80} is no queue; expected a name, a Queue, Exchange or Binding of amqp_routing, or"
                " a Queue of kombu"
            )

    def _from_kombu(self, value: Any) -> Iterator[Part]:
        from amqp_routing import parts_from_kombu

        for part in parts_from_kombu(value):
            yield from self._from_value(part)

    def _from_options(self, name: str, options: Any) -> Iterator[Part]:
        if isinstance(options, Queue):
            yield from self._equipped(options)
            return
        if not isinstance(options, Mapping | None):
            raise ConfigurationError(
                f"task_queues[{name!r}]: {options!r:.80} is neither a mapping of options nor a Queue"
            )
        given: dict[str, Any] = dict(options or {})  # pyright: ignore[reportUnknownArgumentType] - checked by name
        unknown = given.keys() - _QUEUE_FIELDS - _BINDING_FIELDS
        if unknown:
            first = min(unknown)
            near = get_close_matches(first, _QUEUE_FIELDS | _BINDING_FIELDS, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"task_queues[{name!r}]: unknown option {first!r}{hint}")
        yield from self._equipped(Queue(name, **{key: given[key] for key in given.keys() & _QUEUE_FIELDS}))
        exchange_name = given.get("exchange")
        if exchange_name:
            kind = ExchangeType(given.get("exchange_type", self._settings.task.default_exchange_type))
            yield Exchange(exchange_name, type=kind)
            yield Binding(
                exchange_name, name, routing_key=given.get("binding_key", given.get("routing_key", name))
            )

    def _equipped(self, queue: Queue) -> Iterator[Part]:
        """A task queue with our standard arguments where it says nothing itself, and its dead-letter queue."""
        task = self._settings.task
        changes: dict[str, Any] = {}
        if (
            queue.type is QueueType.CLASSIC
            and queue.max_priority is None
            and task.queue_max_priority is not None
        ):
            changes["max_priority"] = task.queue_max_priority
        if queue.type is QueueType.QUORUM and queue.delivery_limit is None:
            changes["delivery_limit"] = task.delivery_limit
        if task.dead_letter_queues and queue.type is not QueueType.STREAM:
            dead_name = dead_letter_queue_name(queue.name)
            if queue.dead_letter_exchange is None:
                changes |= {"dead_letter_exchange": "", "dead_letter_routing_key": dead_name}
            yield _dead_queue(dead_name)
        yield replace(queue, **changes)


def _assembled(parts: Iterable[Part]) -> Topology:
    found = list(parts)
    return Topology(
        exchanges=tuple(part for part in found if isinstance(part, Exchange)),
        queues=tuple(part for part in found if isinstance(part, Queue)),
        bindings=tuple(part for part in found if isinstance(part, Binding)),
    )


_DEAD_DELIVERY_LIMIT = 2**31 - 1
"""In effect none. Who looks at a dead letter hands it back, and each return counts: under the limit of 20 that RabbitMQ 4.0
applies to a queue which declares none, looking too often would drop it. With a limit 3.10 keeps the order of what comes
back, too. (-1 is no way to say 'none': 3.10 takes it for 'drop at the first return'.)"""


def _dead_queue(name: str) -> Queue:
    return Queue(name, type=QueueType.QUORUM, delivery_limit=_DEAD_DELIVERY_LIMIT)


def dead_letters_held(name: str, task_queues: Collection[str], *, is_known: bool) -> str | None:
    """The task queue whose dead letters a queue of this name holds; None: it is a task queue itself.

    A queue may well be called `walking.dead`, but then the app says so: a name that it does not know is more likely that
    of a queue made by a call.
    """
    task_queue = name.removesuffix(DEAD_SUFFIX)
    if task_queue == name or (is_known and task_queue not in task_queues):
        return None
    return task_queue


def _leads_to(binding: Binding, queue_name: str) -> bool:
    return binding.destination_kind is DestinationKind.QUEUE and binding.destination == queue_name
