"""A consumer of a memory broker.

Life: waiting for its queues → consuming ⇄ paused → closed. A queue that is deleted is waited for again. State is
guarded by the broker's lock; callbacks run on the transport's I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event

from amqp_routing import Topology
from amqp_tasks.errors import BrokerOperationError, BrokerUnreachable
from amqp_tasks.message import Properties
from amqp_tasks.transport._contract import (
    ConsumedQueues,
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    Settlement,
)
from amqp_tasks.transport._streams import OFFSET, StreamPlaces
from amqp_tasks.transport.memory._broker import MemoryBroker
from amqp_tasks.transport.memory._dead import REJECTED
from amqp_tasks.transport.memory._queue import HeldQueue
from amqp_tasks.transport.memory._store import Stored
from amqp_tasks.transport.memory._stream import HeldStream
from amqp_tasks.transport.memory._thread import CallbackThread

__all__ = ("MemoryConsumer", "MemoryDelivery")

ACCESS_REFUSED = 403


class MemoryDelivery(Delivery):
    """See `Delivery`."""

    __slots__ = ("_properties", "is_settled")

    def __init__(self, message: Stored, queue: HeldQueue, *, delivery_tag: int, epoch: int) -> None:
        self.body = message.body
        self.queue_name = queue.name
        self.exchange, self.routing_key = message.exchange, message.routing_key
        self.redelivered = message.redelivered
        self.delivery_tag, self.epoch = delivery_tag, epoch
        self.is_settled = False
        self._properties = message.properties
        if queue.counts_deliveries and message.delivery_count:
            counted = {**message.properties.headers, "x-delivery-count": message.delivery_count}
            self._properties = replace(message.properties, headers=counted)

    @property
    def properties(self) -> Properties:
        """See `Delivery.properties`."""
        return self._properties


@dataclass(slots=True, eq=False)
class _Subscription:
    """What one queue sees of the consumer."""

    consumer: MemoryConsumer
    queue: HeldQueue
    priority: int
    is_exclusive: bool
    offset: int = 0
    unacked: set[int] = field(default_factory=set[int])

    def has_room(self) -> bool:
        """See `Subscriber`."""
        return self.consumer.no_ack or len(self.unacked) < self.consumer.prefetch

    def hand(self, message: Stored) -> None:
        """See `Subscriber`."""
        self.consumer.receive(self, message)


class MemoryConsumer(Consumer):
    """See `Consumer` and the module's docstring."""

    def __init__(
        self,
        broker: MemoryBroker,
        thread: CallbackThread,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None,
    ) -> None:
        self.prefetch = _checked(options.prefetch)
        self.no_ack = options.no_ack
        self.delivered = self.stale_settlements = 0
        self.connects = 0
        self.is_over = self._has_failed = False
        self._broker, self._thread, self._options = broker, thread, options
        self._places = StreamPlaces(options.arguments)
        self._queue_names = tuple(dict.fromkeys(queue_names))
        self._on_deliveries, self._on_event, self._declare = on_deliveries, on_event, declare
        self._epoch = self._last_tag = 0
        self._paused_queues = frozenset(options.paused_queues)
        self._is_paused = self._told_consuming = False
        self._subscriptions: dict[str, _Subscription] = {}
        self._absent: set[str] = set()
        self._unacked: dict[int, tuple[_Subscription, Stored]] = {}
        self._inbox: list[Delivery] = []

    def start(self) -> None:
        """Begin to consume."""
        with self._broker.lock:
            self._broker.watchers[self] = None
            self._epoch = self.connects = 1
            self._subscribe()

    def counts(self) -> dict[str, int]:
        """Its part of the transport's statistics."""
        return {
            "delivered": self.delivered,
            "connects": self.connects,
            "stale_settlements": self.stale_settlements,
        }

    # --- what callers do

    @property
    def queues(self) -> ConsumedQueues:
        """See `Consumer.queues`."""
        with self._broker.lock:
            if self.is_over:
                return ConsumedQueues(missing=self._queue_names if self._has_failed else ())
            active = [name for name in self._queue_names if name not in self._paused_queues]
            missing = tuple(name for name in active if not self._has(name))
            return ConsumedQueues(
                consumed=tuple(name for name in active if name not in missing),
                missing=missing,
                absent=tuple(name for name in missing if name in self._absent),
            )

    def _has(self, name: str) -> bool:
        return name not in self._absent if self._is_paused else name in self._subscriptions

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """See `Consumer.settle`."""
        assert isinstance(delivery, MemoryDelivery)
        with self._broker.lock:
            if delivery.is_settled:
                raise RuntimeError(
                    f"delivery {delivery.delivery_tag} of {delivery.queue_name!r} was settled before"
                )
            delivery.is_settled = True
            if self.no_ack:
                return
            held = self._unacked.pop(delivery.delivery_tag, None) if delivery.epoch == self._epoch else None
            if held is None:
                self.stale_settlements += 1
                return
            self._settle(*held, delivery.delivery_tag, settlement)

    def _settle(self, subscription: _Subscription, message: Stored, tag: int, settlement: Settlement) -> None:
        subscription.unacked.discard(tag)
        queue = subscription.queue
        if settlement in (Settlement.REQUEUE, Settlement.RETURN):
            self._broker.take_back(queue, message)
        elif settlement is Settlement.DROP:
            self._broker.dead_letter(queue, message, REJECTED)
        self._broker.dispatch(queue)

    def flush(self, *, timeout: float) -> None:
        """See `Consumer.flush`; what is settled is settled at once."""

    def set_prefetch(self, prefetch: int) -> None:
        """See `Consumer.set_prefetch`."""
        with self._broker.lock:
            self.prefetch = _checked(prefetch)
            for subscription in tuple(self._subscriptions.values()):
                self._broker.dispatch(subscription.queue)

    def pause(self) -> None:
        """See `Consumer.pause`."""
        with self._broker.lock:
            if not self._is_paused:
                self._is_paused = True
                self._told_consuming = False
                self._unsubscribe(self._queue_names)

    def resume(self) -> None:
        """See `Consumer.resume`."""
        with self._broker.lock:
            if self._is_paused:
                self._is_paused = False
                self._subscribe()

    def pause_queues(self, queue_names: Collection[str]) -> None:
        """See `Consumer.pause_queues`."""
        with self._broker.lock:
            if self._paused_queues != (names := frozenset(queue_names)):
                self._paused_queues = names
                self._told_consuming = False
                self._unsubscribe(names)
                self._subscribe()

    def close(self, *, timeout: float) -> None:
        """See `Consumer.close`."""
        with self._broker.lock:
            self._end(ConsumerState.CLOSED)
        told = Event()
        self._thread.put(told.set)
        if not self._thread.is_current and self._thread.is_alive:
            told.wait(timeout)

    # --- what the broker does; its lock is held

    def receive(self, subscription: _Subscription, message: Stored) -> None:
        """Take a message of one of the queues."""
        self._last_tag += 1
        delivery = MemoryDelivery(message, subscription.queue, delivery_tag=self._last_tag, epoch=self._epoch)
        if not self.no_ack:
            subscription.unacked.add(self._last_tag)
            self._unacked[self._last_tag] = (subscription, message)
        self._inbox.append(delivery)
        if len(self._inbox) == 1:
            self._thread.put(self._deliver)

    def queue_declared(self, name: str) -> None:
        """See `Watcher`."""
        if name in self._queue_names:
            self._subscribe()

    def queue_deleted(self, name: str) -> None:
        """See `Watcher`."""
        if self._subscriptions.pop(name, None) is not None:
            self._told_consuming = False
            self._note_absent(name)
            # Not here: whoever deletes the queue shall find it deleted first.
            self._thread.put(self._look_again)

    def lose(self) -> None:
        """See `Watcher`."""
        self._give_back()
        self._told_consuming = False
        self._tell(ConsumerState.LOST, error=BrokerUnreachable("the connection was dropped by a test"))
        self._epoch += 1  # what comes now is not of what was lost
        self.connects += 1
        self._thread.put(self._look_again)

    # --- within

    def _look_again(self) -> None:
        with self._broker.lock:
            self._subscribe()

    def _subscribe(self) -> None:
        if self._is_paused or self.is_over:
            return
        wanted = [name for name in self._queue_names if name not in self._paused_queues]
        for name in wanted:
            if name not in self._subscriptions and not self._subscribe_to(name):
                return
        if len(self._subscriptions) == len(wanted) and not self._told_consuming:
            self._told_consuming = True
            self._tell(ConsumerState.CONSUMING)
        for subscription in tuple(self._subscriptions.values()):
            self._broker.dispatch(subscription.queue)

    def _subscribe_to(self, name: str) -> bool:
        """Consume one queue, or note that it is absent; False when that ended the consumer."""
        queue = self._broker.queues.get(name) or self._declared(name)
        if name in self._subscriptions or self.is_over:
            return not self.is_over  # the declaration told us already
        if queue is None:
            self._note_absent(name)
            return True
        others = queue.subscribers
        is_exclusive = self._options.exclusive and not queue.counts_deliveries  # as RabbitMQ's quorum queues
        if others and (is_exclusive or any(each.is_exclusive for each in others)):
            text = f"queue {name!r} is consumed by another, and one of the two wants it exclusively"
            error = BrokerOperationError(text, reply_code=ACCESS_REFUSED, reply_text="ACCESS_REFUSED")
            self._end(ConsumerState.FAILED, error)
            return False
        priority = self._options.arguments.get(name, {}).get("x-priority", 0)
        subscription = _Subscription(self, queue, int(priority), is_exclusive)
        if isinstance(queue, HeldStream):
            subscription.offset = queue.place_of((self._places.arguments(name) or {}).get(OFFSET))
        self._subscriptions[name] = subscription
        self._absent.discard(name)
        queue.subscribers.append(subscription)
        return True

    def _declared(self, name: str) -> HeldQueue | None:
        if self._declare is None or self._declare.queue(name) is None:
            return None
        self._broker.add_missing(self._declare)
        return self._broker.queues.get(name)

    def _note_absent(self, name: str) -> None:
        if name not in self._absent:
            self._absent.add(name)
            self._places.begin_again(name)
            self._tell(ConsumerState.CANCELLED, queue_name=name)

    def _unsubscribe(self, names: Collection[str]) -> None:
        left = [self._subscriptions.pop(name) for name in names if name in self._subscriptions]
        for subscription in left:
            subscription.queue.subscribers.remove(subscription)
            subscription.queue.last_used = self._broker.now()
        for subscription in left:
            self._broker.dispatch(subscription.queue)

    def _give_back(self) -> None:
        """What the broker does when a channel ends: all open deliveries return to their queues."""
        self._unsubscribe(self._queue_names)
        unacked, self._unacked = self._unacked, {}
        self._inbox.clear()
        self._epoch += 1
        for subscription, message in unacked.values():
            self._broker.take_back(subscription.queue, message)
        for queue in dict.fromkeys(subscription.queue for subscription, _ in unacked.values()):
            self._broker.dispatch(queue)

    def _end(self, state: ConsumerState, error: Exception | None = None) -> None:
        if not self.is_over:
            self.is_over, self._has_failed = True, state is ConsumerState.FAILED
            self._broker.watchers.pop(self, None)
            self._give_back()
            self._tell(state, error=error)

    # --- callbacks

    def _tell(
        self, state: ConsumerState, *, queue_name: str | None = None, error: Exception | None = None
    ) -> None:
        event = ConsumerEvent(state=state, epoch=self._epoch, queue_name=queue_name, error=error)
        self._thread.put(partial(self._on_event, event))

    def _deliver(self) -> None:
        with self._broker.lock:
            batch, self._inbox = self._inbox, []
            self.delivered += len(batch)
            self._places.note(batch)
        if batch:
            self._on_deliveries(batch)


def _checked(prefetch: int) -> int:
    if prefetch < 1:
        raise ValueError(f"prefetch is {prefetch}, must be at least 1")
    return prefetch
