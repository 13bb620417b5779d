"""Delayed messages on their way out: what they need of the timer wheel is declared first, once per connection.

Messages wait for it in the publisher's care, which minds their deadlines; messages without a delay never come here. One
declaration runs at a time, so that any number of them takes one channel. All of it on the I/O thread; see
`docs/explanation/delay.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from amqp_routing import Topology
from amqp_tasks.clock import Clock
from amqp_tasks.errors import (
    BrokerConnectionError,
    BrokerOperationError,
    NotSent,
    PublishError,
    UnroutableError,
)
from amqp_tasks.transport._contract import TopologyMode
from amqp_tasks.transport._delay import DUE_EXCHANGE, Stop, WheelEntry
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._operations import Ask, Script
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._publisher import Publisher
from amqp_tasks.transport.rabbitmq._topology import NOT_FOUND, ensure_script, exists_script, queue_ask

__all__ = ("Declare", "Wheel")

Declare = Callable[[Callable[[], Script[None]], float, Callable[[Exception | None], None]], None]
"""Runs a script by a deadline (monotonic), over reconnects, and tells how it went."""

REPAIR_TIMEOUT = 10.0
TRUST = 5.0
"""Seconds for which a destination is taken to be bound. A queue that is deleted loses its binding, also if it is declared
again, and nothing tells: what is due would be a stray."""

PATIENCE = 0.25
"""Seconds for which those whose way is declared wait for the others: what they publish would stand before each further
question on the same connection, and every message that waits for an answer is late by it."""


@dataclass(slots=True)
class _Group:
    """Those that wait for the same declaration."""

    pendings: list[Pending] = field(default_factory=list[Pending])
    repairs: list[Callable[[bool], None]] = field(default_factory=list[Callable[[bool], None]])

    def take(self, other: _Group) -> None:
        """Let those of another one wait here."""
        self.pendings += other.pendings
        self.repairs += other.repairs


class Wheel:
    """See the module's docstring.

    Args:
        loop: of the I/O thread.
        publisher: keeps and sends the messages.
        declare: see `Declare`.
        related: the part of what was declared here that a message to an exchange with a routing key needs.
        clock: monotonic time.
    """

    def __init__(
        self,
        loop: DoorLoop,
        publisher: Publisher,
        *,
        declare: Declare,
        related: Callable[[str, str], Topology | None],
        clock: Clock,
    ) -> None:
        self._loop, self._publisher, self._clock = loop, publisher, clock
        self._declare, self._related = declare, related
        self._stops: set[Stop] = set()
        self._due_queues: dict[str, float] = {}  # until when each is taken to be bound
        self._groups: dict[WheelEntry, _Group] = {}
        self._ready: dict[WheelEntry, _Group] = {}  # declared, see `PATIENCE`
        self._timer: object = None
        self._is_declaring = False
        self._forgotten = 0

    def forget(self) -> None:
        """There is a new connection, or something was missing: nothing is known to be declared."""
        self._forgotten += 1
        self._stops.clear()
        self._due_queues.clear()

    def submit(self, pending: Pending) -> None:
        """Take one delayed message."""
        entry = pending.entry
        assert entry is not None
        ready = self._ready.get(entry)
        if ready is None and self._is_declared(entry):
            self._publisher.submit(pending)
        elif not self._publisher.hold(pending):
            return
        elif ready is not None:
            ready.pendings.append(pending)
        else:
            self._groups.setdefault(entry, _Group()).pendings.append(pending)
            self._declare_next()

    def repair(self, entry: WheelEntry, then: Callable[[bool], None]) -> None:
        """A message was returned from the wheel: declare all that it needs once more."""
        self.forget()
        self._groups.setdefault(entry, _Group()).repairs.append(then)
        self._declare_next()

    def _is_declared(self, entry: WheelEntry) -> bool:
        is_bound = self._due_queues.get(entry.due_queue, 0.0) > self._clock.monotonic()
        return is_bound and self._stops.issuperset(entry.stops)

    def _declare_next(self) -> None:
        if self._is_declaring:
            return
        self._drop_ended()
        if not self._groups:
            return
        self._is_declaring = True
        entry, group = next(iter(self._groups.items()))
        deadlines = [pending.deadline for pending in group.pendings]
        deadline = max(deadlines, default=self._clock.monotonic() + REPAIR_TIMEOUT)
        known = self._related(*entry.target)
        self._declare(
            lambda: _needs(entry, known, frozenset(self._stops)),
            deadline,
            partial(self._on_declared, entry, deadline, self._forgotten),
        )

    def _drop_ended(self) -> None:
        """Forget the first groups as long as nobody waits any more: the publisher has ended their messages."""
        while self._groups:
            entry, group = next(iter(self._groups.items()))
            group.pendings = [pending for pending in group.pendings if not pending.is_done]
            if group.pendings or group.repairs:
                return
            del self._groups[entry]

    def _on_declared(
        self, entry: WheelEntry, deadline: float, forgotten: int, error: Exception | None
    ) -> None:
        self._is_declaring = False
        if error is None and forgotten != self._forgotten:
            pass  # something was found missing meanwhile, perhaps what was left out as known: once more
        elif error is None:
            self._stops.update(entry.stops)
            self._due_queues[entry.due_queue] = self._clock.monotonic() + TRUST
            for each in [each for each in self._groups if each == entry or self._is_declared(each)]:
                # Its way may have been repaired before: those who waited for that are there still.
                self._ready.setdefault(each, _Group()).take(self._groups.pop(each))
        else:
            self._failed(entry, deadline, error)
        if error is not None or not self._groups:
            self._let_ready_go()
        elif self._timer is None:
            self._timer = self._loop.call_guarded(PATIENCE, self._let_ready_go)
        # Not from here: when nothing can be declared any more, the answer comes before `_declare` returns.
        self._loop.at_turn_end(self._declare_next)

    def _failed(self, entry: WheelEntry, deadline: float, error: Exception) -> None:
        group, now = self._groups[entry], self._clock.monotonic()
        if isinstance(error, BrokerConnectionError) and now >= deadline:
            # The time of those that it began for is up, which the publisher tells them; others came later.
            group.pendings = [pending for pending in group.pendings if pending.deadline > now]
            if group.pendings:
                # After the others, which would wait for as long as more of these come.
                self._groups[entry] = self._groups.pop(entry)
                return
        self._let_go(entry, self._groups.pop(entry), error)

    def _let_ready_go(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        ready, self._ready = self._ready, {}
        for entry, group in ready.items():
            self._let_go(entry, group, None)

    def _let_go(self, entry: WheelEntry, group: _Group, error: Exception | None) -> None:
        self._publisher.release(group.pendings, None if error is None else partial(_refusal, entry, error))
        # A connection lost meanwhile is no answer: send again, the broker will say.
        worked = error is None or isinstance(error, BrokerConnectionError)
        for then in group.repairs:
            then(worked)


def _refusal(entry: WheelEntry, error: Exception) -> PublishError:
    exchange, routing_key = entry.target
    if isinstance(error, BrokerOperationError) and error.reply_code == NOT_FOUND:
        refusal: PublishError = UnroutableError(
            f"a delayed message for exchange {exchange!r}, routing key {routing_key!r} has no destination ({error}):"
            " declare it, or mend task_routes"
        )
    else:
        refusal = NotSent(f"what a delayed message needs cannot be declared: {error}")
    refusal.__cause__ = error
    return refusal


def _needs(entry: WheelEntry, known: Topology | None, stops: frozenset[Stop]) -> Script[None]:
    """Declare the wheel as far as `entry` needs it and is not known to have it by `stops`, and its way out."""
    if not stops.issuperset(entry.stops):
        yield from _way_through(entry, stops)
    try:
        yield from _way_out(entry)
    except BrokerOperationError as exc:
        if exc.reply_code != NOT_FOUND or known is None:
            raise
        # Gone since it was declared here: as for a message that is returned.
        yield from ensure_script(known, TopologyMode.DECLARE)
        yield from _way_out(entry)


def _way_through(entry: WheelEntry, stops: frozenset[Stop]) -> Script[None]:
    try:
        # Few asks: each takes its turn behind the messages of a busy connection, and whoever waits for this is late by it.
        yield from ensure_script(entry.topology(stops), TopologyMode.DECLARE)
    except BrokerOperationError as exc:
        if exc.reply_code != NOT_FOUND or not stops:
            raise
        # What was declared for others is gone.
        yield from ensure_script(entry.topology(), TopologyMode.DECLARE)


def _way_out(entry: WheelEntry) -> Script[None]:
    own_exit = entry.exit_queue
    if own_exit is not None:
        yield from exists_script(entry.target[0])
        yield queue_ask(own_exit)
    places = {"queue": entry.due_queue, "exchange": DUE_EXCHANGE, "routing_key": entry.due_pattern}
    yield Ask("queue_bind", {**places, "arguments": {}}, f"binding {entry.due_queue!r} to {DUE_EXCHANGE!r}")
