"""The broker of one `memory://` URL: topology, routing, queues, and who gets what.

One lock guards everything, consumers' open deliveries included; nothing waits and no callback runs while it is held.
Consumers hang on their I/O threads (`_thread`), publishers act in the caller's thread.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Protocol

from amqp_routing import Binding, PublishRefused, Queue, QueueType, Topology, UnknownExchange, resolve
from amqp_tasks._forks import after_fork_in_child
from amqp_tasks.clock import Clock
from amqp_tasks.errors import (
    NotSent,
    PublishError,
    PublishNacked,
    TopologyMismatch,
    UnknownQueue,
    UnroutableError,
)
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._contract import QueueStatus, TopologyMode
from amqp_tasks.transport._delay import STRAY_NAME, without_expiration
from amqp_tasks.transport._partial import PartialTopology
from amqp_tasks.transport.memory._dead import DELIVERY_LIMIT, EXPIRED, MAXLEN, dead_properties, died_in
from amqp_tasks.transport.memory._queue import HeldQueue
from amqp_tasks.transport.memory._store import MessageStore, Stored
from amqp_tasks.transport.memory._stream import HeldStream
from amqp_tasks.transport.memory._thread import CallbackThread
from amqp_tasks.transport.memory._topology import (
    differences,
    missing,
    refuse_loose,
    refuse_unsupported,
    without_bindings,
)
from amqp_tasks.transport.memory._values import as_received

__all__ = ("MemoryBroker", "broker_named")

FULL_PAUSE = 1.0
"""Seconds after which a message that was due and that a full queue refused is offered again."""


class Watcher(Protocol):
    """What wants to know about queues: a consumer. Called with the lock held."""

    def queue_declared(self, name: str) -> None:
        """A queue came into being."""
        ...

    def queue_deleted(self, name: str) -> None:
        """A queue is gone."""
        ...

    def lose(self) -> None:
        """The connection is gone."""
        ...


class MemoryBroker:
    """See the module's docstring. Every method may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, HeldQueue] = {}
        self.watchers: dict[Watcher, None] = {}
        self._clock = clock
        self._store = MessageStore()
        self._topology: Topology = PartialTopology()
        self._positions = itertools.count(1)
        self._due: list[tuple[float, str]] = []
        self._delayed: list[tuple[float, int, OutgoingMessage, Properties]] = []
        self._threads: weakref.WeakSet[CallbackThread] = weakref.WeakSet()

    # --- topology

    def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """`Transport.ensure_topology`."""
        refuse_unsupported(topology)
        with self.lock:
            self._tidy()
            found = differences(topology, self._topology)
            if found:
                raise TopologyMismatch(found)
            exchanges, queues = missing(topology, self._topology)
            names = [*(each.name for each in exchanges), *(each.name for each in queues)]
            if mode is TopologyMode.CHECK and names:
                hint = f"not on the broker: {', '.join(names)}; run `amqp-tasks topology apply`, or set topology='declare'"
                raise UnknownQueue(names[0], hint=hint)
            if mode is TopologyMode.DECLARE:
                self.add_missing(topology)

    def add_missing(self, topology: Topology) -> None:
        """Declare what is not there, and all bindings; what is there stays as it is."""
        with self.lock:
            exchanges, queues = missing(topology, self._topology)
            bindings = tuple(each for each in topology.bindings if each not in self._topology.bindings)
            held, now = self._topology, self._clock.monotonic()
            if exchanges or queues or bindings:
                self._topology = PartialTopology(
                    exchanges=(*held.exchanges, *exchanges),
                    queues=(*held.queues, *queues),
                    bindings=(*held.bindings, *bindings),
                )
            for queue in topology.queues:
                if queue.name in self.queues:
                    self.queues[queue.name].last_used = now
            self._add_queues(queues, now)

    def bind(self, bindings: Iterable[Binding]) -> None:
        """`Transport.bind`."""
        with self.lock:
            for each in bindings:
                refuse_loose(each, self._topology)
                self.add_missing(PartialTopology(bindings=(each,)))

    def unbind(self, bindings: Collection[Binding]) -> None:
        """`Transport.unbind`."""
        with self.lock:
            self._topology = without_bindings(self._topology, bindings)

    def _add_queues(self, queues: Iterable[Queue], now: float) -> None:
        for queue in queues:
            kind = HeldStream if queue.type is QueueType.STREAM else HeldQueue
            self.queues[queue.name] = kind(queue, self._store, now)
        for queue in queues:
            for watcher in tuple(self.watchers):
                watcher.queue_declared(queue.name)

    def compare(self, topology: Topology) -> tuple[str, ...]:
        """`Transport.compare_topology`."""
        with self.lock:
            self._tidy()
            remedy = "is not on the broker: run `amqp-tasks topology apply`"
            exchanges, queues = missing(topology, self._topology)
            lines = [f"exchange {each.name!r} {remedy}" for each in exchanges]
            lines += [f"queue {each.name!r} {remedy}" for each in queues]
            return (*lines, *differences(topology, self._topology))

    def status(self, name: str) -> QueueStatus | None:
        """`Transport.queue_status`."""
        with self.lock:
            self._tidy()
            queue = self.queues.get(name)
            if queue is None:
                return None
            queue.last_used = self._clock.monotonic()
            return QueueStatus(name=name, messages=self._store.count(name), consumers=len(queue.subscribers))

    def purge(self, name: str) -> int:
        """`Transport.purge_queue`."""
        with self.lock:
            self._tidy()
            if name not in self.queues:
                raise UnknownQueue(name, hint="the broker has no such queue")
            return self._store.purge(name)

    def delete(self, name: str) -> None:
        """`Transport.delete_queue`."""
        with self.lock:
            if self.queues.pop(name, None) is None:
                return
            held = self._topology
            self._topology = PartialTopology(
                exchanges=held.exchanges,
                queues=tuple(each for each in held.queues if each.name != name),
                bindings=tuple(each for each in held.bindings if each.destination != name),
            )
            self._store.remove_queue(name)
            for watcher in tuple(self.watchers):
                watcher.queue_deleted(name)

    # --- messages in

    def publish(self, message: OutgoingMessage) -> PublishError | None:
        """Route and store; returns why not, if not.

        Raises:
            EncodeError: a header that AMQP cannot hold.
        """
        properties = as_received(message.properties)
        with self.lock:
            self._tidy()
            try:
                names = self._route(message.exchange, message.routing_key, properties)
                deadline = self._deadline(properties)
            except NotSent as exc:
                return exc
            if not names and message.mandatory:
                return UnroutableError(
                    f"no queue takes exchange {message.exchange!r} with routing key {message.routing_key!r}:"
                    " declare or bind one, or correct the route"
                )
            if message.delay is not None and message.delay > 0:
                self._keep(message.delay, message, without_expiration(properties))
                return None
            refused = [name for name in names if not self._offer(name, message, properties, deadline)]
        if refused:
            return PublishNacked(f"queue {refused[0]!r} is full and refuses new messages")
        return None

    def _keep(self, seconds: float, message: OutgoingMessage, properties: Properties) -> None:
        """Hold a message back until it is due."""
        due = self._clock.monotonic() + seconds
        is_earlier = not self._delayed or due < self._delayed[0][0]
        heapq.heappush(self._delayed, (due, next(self._positions), message, properties))
        if is_earlier:
            self._wake()

    def _let_in(self, message: OutgoingMessage, properties: Properties) -> None:
        """A message that was held back is due. Without a destination it is a stray, as it is with RabbitMQ."""
        try:
            names = self._route(message.exchange, message.routing_key, properties)
        except NotSent:
            names = ()
        if not names:
            self.add_missing(Topology(queues=(Queue(STRAY_NAME),)))
            names = (STRAY_NAME,)
        if not [name for name in names if self._offer(name, message, properties, None)]:
            self._keep(FULL_PAUSE, message, properties)

    def _route(self, exchange: str, routing_key: str, properties: Properties) -> tuple[str, ...]:
        headers = properties.headers
        if not exchange and "CC" not in headers and "BCC" not in headers:
            return (routing_key,) if routing_key in self.queues else ()
        try:
            return resolve(self._topology, exchange, routing_key, headers)
        except UnknownExchange as exc:
            raise UnroutableError(f"no exchange {exchange!r}: declare it, or correct the route") from exc
        except PublishRefused as exc:
            raise NotSent(str(exc)) from exc

    def _deadline(self, properties: Properties) -> float | None:
        if properties.expiration is None:
            return None
        if not properties.expiration.isdecimal():
            raise NotSent(f"expiration is {properties.expiration!r}, not a number of milliseconds")
        return self._clock.monotonic() + int(properties.expiration) / 1000

    def _offer(
        self, name: str, message: OutgoingMessage, properties: Properties, deadline: float | None
    ) -> bool:
        queue = self.queues[name]
        stored = Stored(
            position=next(self._positions),
            priority=queue.priority_of(properties.priority),
            properties=properties,
            body=message.body,
            exchange=message.exchange,
            routing_key=message.routing_key,
            deadline=deadline,
        )
        if queue.refuses(len(message.body)):
            if queue.refused_is_dead:
                self.dead_letter(queue, stored, MAXLEN)
            return False
        self._accept(queue, stored)
        return True

    def _accept(self, queue: HeldQueue, message: Stored) -> None:
        if isinstance(queue, HeldStream):
            queue.append(message, self._clock.monotonic())
            queue.serve()
            return
        deadline, ttl = message.deadline, queue.declared.message_ttl
        if ttl is not None:
            ends = self._clock.monotonic() + ttl
            deadline = ends if deadline is None else min(ends, deadline)
        # What can be handed out at once never expires, not even with a TTL of 0.
        message.deadline = None
        self._store.put(queue.name, message)
        self.dispatch(queue)
        message.deadline = deadline
        for surplus in queue.surplus():
            self.dead_letter(queue, surplus, MAXLEN)
        if deadline is not None:
            self._expect(deadline, queue.name)

    # --- messages out

    def dispatch(self, queue: HeldQueue) -> None:
        """Hand out what is ready as far as consumers have room."""
        with self.lock:
            if isinstance(queue, HeldStream):
                queue.serve()
                return
            while self.queues.get(queue.name) is queue and self._drop_expired(queue) is not None:
                subscriber = queue.next_subscriber()
                if subscriber is None:
                    return
                subscriber.hand(self._store.take(queue.name))

    def take_back(self, queue: HeldQueue, message: Stored) -> None:
        """Put a delivered message back to its place, or to the dead letters when it came back too often."""
        with self.lock:
            if self.queues.get(queue.name) is not queue or isinstance(queue, HeldStream):
                return
            message.redelivered = True
            message.delivery_count += 1
            if queue.is_over_limit(message):
                self.dead_letter(queue, message, DELIVERY_LIMIT)
            else:
                self._store.put(queue.name, message)

    def dead_letter(self, queue: HeldQueue, message: Stored, reason: str) -> None:
        """Pass a message on as the queue says, or drop it."""
        declared = queue.declared
        exchange = declared.dead_letter_exchange
        if exchange is None:
            return
        key = declared.dead_letter_routing_key
        routing_key = message.routing_key if key is None else key
        properties = dead_properties(message, queue.name, reason)
        with self.lock:
            try:
                names = self._route(exchange, routing_key, properties)
            except NotSent:
                return  # as RabbitMQ: a dead letter without a way is dropped
            for name in names:
                target = self.queues[name]
                passed = replace(
                    message,
                    position=next(self._positions),
                    priority=target.priority_of(properties.priority),
                    properties=properties,
                    exchange=exchange,
                    routing_key=routing_key,
                    deadline=None,
                    redelivered=False,
                    delivery_count=0,
                )
                if not died_in(passed, name) or reason == "rejected":
                    self._accept(target, passed)

    # --- time

    def now(self) -> float:
        """The broker's clock."""
        return self._clock.monotonic()

    def attach(self, thread: CallbackThread) -> None:
        """Have this thread call `expire_due` in time."""
        with self.lock:
            self._threads.add(thread)

    def next_due(self) -> float | None:
        """In how many seconds the next message may expire or is due."""
        with self.lock:
            soonest = [heap[0][0] for heap in (self._due, self._delayed) if heap]
            return max(0.0, min(soonest) - self._clock.monotonic()) if soonest else None

    def expire_due(self) -> None:
        """Let messages in that are due, and let those expire whose time has come and that are at the head of their queue."""
        with self.lock:
            self._tidy()

    def _tidy(self) -> None:
        """What time has changed since somebody last looked."""
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self._let_in(*heapq.heappop(self._delayed)[2:])
        while self._due and self._due[0][0] <= now:
            queue = self.queues.get(heapq.heappop(self._due)[1])
            if queue is not None:
                self.dispatch(queue)
        for queue in [each for each in self.queues.values() if each.is_unused_since(now)]:
            self.delete(queue.name)

    def _drop_expired(self, queue: HeldQueue) -> Stored | None:
        """The message at the head after those before it that have expired are gone."""
        now = self._clock.monotonic()
        while (head := self._store.peek(queue.name)) is not None:
            if head.deadline is None or head.deadline > now:
                return head
            self.dead_letter(queue, self._store.take(queue.name), EXPIRED)
        return None

    def _expect(self, deadline: float, name: str) -> None:
        is_earlier = not self._due or deadline < self._due[0][0]
        heapq.heappush(self._due, (deadline, name))
        if is_earlier:
            self._wake()

    def _wake(self) -> None:
        for thread in tuple(self._threads):
            thread.put(self.expire_due)

    # --- faults

    def drop_connections(self) -> None:
        """Do to all consumers what the loss of their connections does; for tests of those above."""
        with self.lock:
            for watcher in tuple(self.watchers):
                watcher.lose()


_brokers: dict[str, MemoryBroker] = {}
_brokers_lock = threading.Lock()


def broker_named(name: str, clock: Clock) -> MemoryBroker:
    """The process's broker of that name, made at the first call; `clock` is that of the first caller."""
    with _brokers_lock:
        if name not in _brokers:
            _brokers[name] = MemoryBroker(clock)
        return _brokers[name]


def _after_fork() -> None:
    global _brokers_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _brokers_lock = threading.Lock()
    _brokers.clear()


after_fork_in_child(_after_fork)
