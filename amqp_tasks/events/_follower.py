"""Following one task by its events."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from amqp_routing import Binding, Queue, QueueType, Topology
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import AmqpTasksError, BrokerUnreachable, ResultTimeout
from amqp_tasks.events._event import ENDS, EVENTS_NAME, TaskEvent, binding_key, events_exchange, read_events
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement, TopologyMode

if TYPE_CHECKING:
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport

__all__ = ("Follower",)

logger = logging.getLogger(__name__)

_PREFETCH = 100
_EXPIRES = 60.0
_MAX_LENGTH = 10_000
_OPEN_TIMEOUT = 30.0
_CLOSE_TIMEOUT = 2.0


class Follower:
    """What is told of one task; a context, to be iterated over once, by `events`.

    Entering makes a queue of its own and returns when that is consumed: what is told from then on is not missed, nor is it
    while the connection is lost for less than a minute. Leaving deletes the queue.

    Args:
        transport: consumes.
        task_id: of the task.
    """

    def __init__(self, transport: Transport, task_id: str) -> None:
        self._transport, self._task_id = transport, task_id
        self._queue_name = f"{EVENTS_NAME}.{uuid.uuid4().hex}"
        self._inbox: SimpleQueue[TaskEvent | Exception] = SimpleQueue()
        self._is_consuming = Event()
        self._consumer: Consumer | None = None
        # The transport may call back from its own thread before `consume` has returned.
        self._starting = Lock()

    def __enter__(self) -> Self:
        topology = Topology(
            exchanges=(events_exchange(),),
            queues=(
                Queue(self._queue_name, type=QueueType.CLASSIC, expires=_EXPIRES, max_length=_MAX_LENGTH),
            ),
            bindings=(Binding(EVENTS_NAME, self._queue_name, routing_key=binding_key(self._task_id)),),
        )
        self._transport.ensure_topology(topology, mode=TopologyMode.DECLARE, is_lasting=False)
        with self._starting:
            self._consumer = self._transport.consume(
                [self._queue_name],
                ConsumerOptions(prefetch=_PREFETCH),
                on_deliveries=self._on_deliveries,
                on_event=self._on_event,
                declare=topology,
            )
        if not self._is_consuming.wait(_OPEN_TIMEOUT):
            self.__exit__(None, None, None)
            raise BrokerUnreachable(f"the events of a task could not be had within {_OPEN_TIMEOUT:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            self._consumer.close(timeout=_CLOSE_TIMEOUT)
        with suppress(AmqpTasksError):  # else it expires
            self._transport.delete_queue(self._queue_name, timeout=_CLOSE_TIMEOUT)

    def events(self, timeout: float | None = None) -> Iterator[TaskEvent]:
        """What is told, up to the event that says how the task has ended (`ENDS`).

        Args:
            timeout: seconds for the whole; None: no limit.

        Raises:
            ResultTimeout: no end was told within it.
            BrokerConnectionError, BrokerOperationError: the queue cannot be consumed any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                found = self._inbox.get(timeout=seconds_left(deadline))
            except Empty:
                raise ResultTimeout(
                    f"no end of task {self._task_id} was told within {timeout:g} s: it goes on, or it has ended before, or it"
                    " does not tell of its progress"
                ) from None
            if isinstance(found, Exception):
                raise found
            yield found
            if found.type in ENDS:
                return

    # On the I/O thread.

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        with self._starting:
            consumer = self._consumer
        assert consumer is not None
        for delivery in deliveries:
            try:
                events = read_events(delivery.properties, delivery.body)
            except Exception as exc:  # noqa: BLE001 - whatever was published there, others follow
                logger.debug("something on an events queue is no event: %s", exc, extra={"action": "events"})
                events = []
            for event in events:
                if event.task_id == self._task_id:
                    self._inbox.put(event)
            consumer.settle(delivery, Settlement.ACK)

    def _on_event(self, event: ConsumerEvent) -> None:
        if event.state is ConsumerState.FAILED:
            self._inbox.put(event.error or BrokerUnreachable("the events cannot be consumed any more"))
        if event.state in {ConsumerState.CONSUMING, ConsumerState.FAILED}:
            self._is_consuming.set()
