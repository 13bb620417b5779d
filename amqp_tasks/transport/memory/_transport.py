"""The memory transport's front: what callers hold. See `amqp_tasks.transport._contract.Transport`."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from amqp_routing import Binding, Topology
from amqp_tasks._forks import after_fork_in_child
from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import (
    BrokerOperationError,
    ClosedError,
    MessageTooLarge,
    PublishError,
    PublishNacked,
    UnroutableError,
)
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport._contract import (
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    Delivery,
    QueueStatus,
    ServerInfo,
    TopologyMode,
    Transport,
    TransportStatistics,
)
from amqp_tasks.transport._partial import PartialTopology
from amqp_tasks.transport._rights import Right
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.memory._broker import MemoryBroker, broker_named
from amqp_tasks.transport.memory._consumer import MemoryConsumer
from amqp_tasks.transport.memory._thread import CallbackThread
from amqp_tasks.transport.memory._topology import remembered

if TYPE_CHECKING:
    from amqp_tasks.settings import Settings

__all__ = ("MemoryTransport",)

_live: weakref.WeakSet[MemoryTransport] = weakref.WeakSet()


class MemoryTransport(Transport):
    """One door to the process's broker of that URL. See `Transport` and the package's docstring.

    Life: 1. constructing does nothing; 2. the first use takes the broker and starts the I/O thread; 3. `close` ends
    its consumers and the thread; the broker keeps its messages for the next transport.
    """

    def __init__(self, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        url = settings.broker.url[0]
        self._url = url.masked
        self._name = f"{url.host}/{url.vhost.strip('/')}"
        self._max_message_bytes = settings.app.max_message_bytes
        self._clock = clock
        self._tally = Tally(clock)  # of one process and its broker, which end together: nobody reads it
        self._is_closed = False
        self._reset()
        _live.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._broker: MemoryBroker | None = None
        self._thread: CallbackThread | None = None
        self._consumers: list[MemoryConsumer] = []
        self._remembered: Topology = PartialTopology()
        self._counts: Counter[str] = Counter()

    def _started(self) -> tuple[MemoryBroker, CallbackThread]:
        with self._lock:
            if self._is_closed:
                raise ClosedError("the transport is closed")
            if self._broker is None or self._thread is None:
                broker = broker_named(self._name, self._clock)
                thread = CallbackThread(broker.next_due, broker.expire_due)
                broker.attach(thread)
                self._counts["connects"] += 1
                self._broker, self._thread = broker, thread
            return self._broker, self._thread

    def _waiting_broker(self) -> MemoryBroker:
        """The broker, for a call that would wait with a real one."""
        broker, thread = self._started()
        if thread.is_current:
            raise RuntimeError(
                "called from the I/O thread (in a callback), which would wait for itself: use publish_nowait, or"
                " hand the work to another thread"
            )
        return broker

    @property
    def tally(self) -> Tally:
        """See `Transport.tally`."""
        return self._tally

    # --- publishing

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """See `Transport.publish`. Nothing here takes time, so there is no deadline."""
        error = self._publish(self._waiting_broker(), message)
        if error is not None:
            raise error

    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """See `Transport.publish_many`."""
        broker = self._waiting_broker()
        return [self._publish(broker, message) for message in messages]

    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """See `Transport.publish_nowait`."""
        broker, thread = self._started()
        thread.put(partial(on_outcome, self._publish(broker, message)))

    def _publish(self, broker: MemoryBroker, message: OutgoingMessage) -> PublishError | None:
        error = self._too_large(message)
        if error is None:
            self._count("published")
            error = broker.publish(message)
            if isinstance(error, UnroutableError) and self._declare_again(broker, message):
                self._count("resent")
                error = broker.publish(message)
            self._count_outcome(error)
        if error is not None:
            properties = message.properties
            error.about(
                exchange=message.exchange,
                routing_key=message.routing_key,
                message_id=properties.correlation_id or properties.message_id or "",
            )
        return error

    def _too_large(self, message: OutgoingMessage) -> PublishError | None:
        if len(message.body) <= self._max_message_bytes or message.is_relayed:
            return None
        return MessageTooLarge(
            f"the body has {len(message.body)} bytes, max_message_bytes is {self._max_message_bytes}:"
            " pass a reference to the data instead, or raise max_message_bytes"
        )

    def _declare_again(self, broker: MemoryBroker, message: OutgoingMessage) -> bool:
        """Whether something that we had declared was gone, and is back now."""
        known = self._remembered
        is_ours = (
            known.exchange(message.exchange) is not None
            if message.exchange
            else known.queue(message.routing_key)
        )
        if not is_ours or not broker.compare(known):
            return False
        broker.add_missing(known)
        return True

    def _count_outcome(self, error: PublishError | None) -> None:
        if isinstance(error, UnroutableError):
            self._count("returned")
        elif isinstance(error, PublishNacked):
            self._count("nacked")
        elif error is None:
            self._count("confirmed")

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # --- operations

    def open(self, *, timeout: float) -> ServerInfo:
        """See `Transport.open`."""
        kombu: Any = import_module("kombu")
        self._waiting_broker()
        return ServerInfo(product="memory (kombu)", version=tuple(kombu.VERSION[:3]), url=self._url)

    def ensure_topology(
        self, topology: Topology, *, mode: TopologyMode, timeout: float | None = None, is_lasting: bool = True
    ) -> None:
        """See `Transport.ensure_topology`."""
        if mode is TopologyMode.NONE:
            return
        self._waiting_broker().ensure(topology, mode)
        if mode is TopologyMode.DECLARE and is_lasting:
            with self._lock:
                self._remembered = remembered(self._remembered, topology)

    def compare_topology(self, topology: Topology, *, timeout: float | None = None) -> tuple[str, ...]:
        """See `Transport.compare_topology`."""
        return self._waiting_broker().compare(topology)

    def bind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.bind`."""
        self._waiting_broker().bind(tuple(bindings))

    def unbind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.unbind`."""
        self._waiting_broker().unbind(frozenset(bindings))

    def refused_rights(
        self, rights: Iterable[Right], *, timeout: float | None = None
    ) -> Mapping[Right, BrokerOperationError]:
        """See `Transport.refused_rights`: there are no users, and everybody may do anything."""
        return {}

    def queue_status(self, queue_name: str, *, timeout: float | None = None) -> QueueStatus | None:
        """See `Transport.queue_status`."""
        return self._waiting_broker().status(queue_name)

    def queue_statuses(
        self, queue_names: Sequence[str], *, timeout: float | None = None
    ) -> list[QueueStatus | None]:
        """See `Transport.queue_statuses`."""
        return [self.queue_status(name) for name in queue_names]

    def purge_queue(self, queue_name: str, *, timeout: float | None = None) -> int:
        """See `Transport.purge_queue`."""
        return self._waiting_broker().purge(queue_name)

    def delete_queue(self, queue_name: str, *, timeout: float | None = None) -> None:
        """See `Transport.delete_queue`."""
        self._waiting_broker().delete(queue_name)

    # --- consuming

    def consume(
        self,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None = None,
    ) -> Consumer:
        """See `Transport.consume`."""
        broker, thread = self._started()
        consumer = MemoryConsumer(
            broker,
            thread,
            queue_names,
            options,
            on_deliveries=on_deliveries,
            on_event=on_event,
            declare=declare,
        )
        with self._lock:
            self._forget_finished()
            self._consumers.append(consumer)
        consumer.start()
        return consumer

    def _forget_finished(self) -> None:
        for each in [each for each in self._consumers if each.is_over]:
            self._consumers.remove(each)
            self._counts.update(each.counts())

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        with self._lock:
            counts = Counter(self._counts)
            for each in self._consumers:
                counts.update(each.counts())
        return TransportStatistics(**counts)

    # --- the end

    def drop_connections(self) -> None:
        """Let every consumer of this URL's broker lose its connection, as a broker's restart does; for tests."""
        self._waiting_broker().drop_connections()

    def close(self, *, timeout: float = 5.0) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
            consumers = tuple(self._consumers)
        if thread is None:
            return
        deadline = self._clock.monotonic() + timeout
        for consumer in consumers:
            consumer.close(timeout=max(0.0, deadline - self._clock.monotonic()))
        thread.stop(max(0.1, deadline - self._clock.monotonic()))

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None and thread.is_alive:
            warnings.warn(
                f"{self!r} was not closed: call close()", ResourceWarning, stacklevel=2, source=self
            )
            thread.stop(0.0)


def _after_fork() -> None:
    for transport in tuple(_live):
        transport._reset()


after_fork_in_child(_after_fork)
