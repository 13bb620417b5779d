"""The RabbitMQ transport's front: what callers hold. See `amqp_tasks.transport._contract.Transport`."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from amqp_routing import Binding, Topology
from amqp_tasks._forks import after_fork_in_child
from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import (
    BrokerOperationError,
    BrokerUnreachable,
    ClosedError,
    MessageTooLarge,
    PublishError,
    SendUnknown,
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
from amqp_tasks.transport._delay import enter_wheel
from amqp_tasks.transport._rights import Right
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._core import Core, Request
from amqp_tasks.transport.rabbitmq._fastwire import encode_head
from amqp_tasks.transport.rabbitmq._loop import Waiter
from amqp_tasks.transport.rabbitmq._operations import Script
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._pending import (
    BatchOutcomes,
    CallbackOutcome,
    DelayedAhead,
    OutcomeSink,
    Pending,
    SingleOutcome,
)
from amqp_tasks.transport.rabbitmq._publisher import PUBLISH_CHANNEL
from amqp_tasks.transport.rabbitmq._rights import refused_rights_script
from amqp_tasks.transport.rabbitmq._topology import (
    bind_script,
    compare_script,
    delete_script,
    ensure_script,
    purge_script,
    status_script,
    unbind_script,
)

__all__ = ("RabbitTransport",)

# The I/O thread enforces deadlines; a caller waits this much longer before it believes that the thread is stuck.
GRACE = 2.0
EXIT_TIMEOUT = 5.0
# Seconds that a delayed message may be on its way to the broker, where many are sent, before no other follows it.
_DELAYED_AHEAD = 0.15
# Operations of one call that are under way at once: each has a channel, of which a broker may allow few.
_ASKED_AT_ONCE = 16

_live: weakref.WeakSet[RabbitTransport] = weakref.WeakSet()
_cores: weakref.WeakSet[Core] = (
    weakref.WeakSet()
)  # those, too, that a transport has let go of and that still say goodbye


class RabbitTransport(Transport):
    """One door to a RabbitMQ broker. See `Transport`.

    Life: 1. constructing does nothing; 2. the first use starts the I/O thread and connects; 3. `close` waits for
    outstanding confirms, says goodbye and ends the thread. Whoever constructs it closes it.
    """

    def __init__(self, options: TransportOptions, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._options, self._clock = options, clock
        self._tally = Tally(clock)
        self._lock = threading.Lock()
        self._core: Core | None = None
        self._is_closed = False
        _live.add(self)
        _register_once()

    def _started(self) -> Core:
        core = self._core
        if core is not None and not core.is_dead:
            return core
        with self._lock:
            if self._is_closed:
                raise ClosedError("the transport is closed")
            if self._core is None or self._core.is_dead:
                dead, core = self._core, Core(self._options, tally=self._tally, clock=self._clock)
                if dead is not None:
                    core.declared = dead.declared  # what is returned is declared again all the same
                _cores.add(core)
                core.thread.start(core.on_end)
                self._core = core
            return self._core

    def _waiting_core(self) -> Core:
        """The core, for a call that is going to wait."""
        core = self._started()
        if core.thread.is_current:
            raise RuntimeError(
                "called from the I/O thread (in a callback), which would wait for itself: use publish_nowait, or"
                " hand the work to another thread"
            )
        return core

    @property
    def tally(self) -> Tally:
        """See `Transport.tally`."""
        return self._tally

    # --- publishing ---

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """See `Transport.publish`."""
        core = self._waiting_core()
        seconds = self._options.publish_timeout if timeout is None else timeout
        outcome = SingleOutcome()
        pending = self._pending(message, seconds, outcome)
        core.loop.put(core.door_for(pending), pending)
        waiter = outcome.waiter
        if not waiter.wait(seconds + GRACE):
            raise SendUnknown("the I/O thread did not answer; the message may be stored").about(
                exchange=message.exchange, routing_key=message.routing_key, message_id=pending.message_id
            )
        if waiter.value is not None:
            raise waiter.value

    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """See `Transport.publish_many`. The deadline of each message starts when it is taken from `messages`.

        Raises:
            EncodeError: a message AMQP cannot hold, or whatever `messages` raises. What was taken before is sent all
                the same.
            SendUnknown: the I/O thread does not answer any more (a callback blocks it).
        """
        core = self._waiting_core()
        seconds = self._options.publish_timeout if timeout is None else timeout
        batch = BatchOutcomes()
        outcomes = batch.outcomes
        window = 2 * self._options.publish_window
        delayed = DelayedAhead(batch, seconds=_DELAYED_AHEAD, clock=self._clock)
        is_answered = True
        for message in messages:
            outcomes.append(None)
            try:
                pending = self._pending(message, seconds, batch, len(outcomes) - 1)
            except MessageTooLarge as exc:
                outcomes[-1] = exc
                core.loop.put(batch.count_refused)
                continue
            # One by one: gathering here would hold a message back for as long as `messages` takes to give the next.
            core.loop.put_soon(core.door_for(pending), pending)
            if message.delay is not None and is_answered:
                late = delayed.add(len(outcomes))
                if late is not None:
                    oldest, until = late
                    self._await(core, batch, until, seconds)
                    # A broker that is silent: few at a time would each wait out a deadline of their own.
                    is_answered = outcomes[oldest - 1] is None
            if len(outcomes) - batch.finished >= window:
                self._await(core, batch, len(outcomes) - window // 2, seconds)
        self._await(core, batch, len(outcomes), seconds)
        return outcomes

    def _await(self, core: Core, batch: BatchOutcomes, finished: int, seconds: float) -> None:
        core.loop.rouse()
        if not batch.wait_for(finished, seconds + GRACE):
            raise SendUnknown("the I/O thread did not answer; messages may be stored")

    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """See `Transport.publish_nowait`."""
        core = self._started()
        seconds = self._options.publish_timeout if timeout is None else timeout
        sink = CallbackOutcome(on_outcome)
        try:
            pending = self._pending(message, seconds, sink)
        except MessageTooLarge as exc:
            core.loop.put(partial(sink.done, 0), exc)
            return
        core.loop.put(core.door_for(pending), pending)

    def _pending(
        self, message: OutgoingMessage, seconds: float, sink: OutcomeSink, index: int = 0
    ) -> Pending:
        """Encode in the caller's thread: its errors are the caller's, and the I/O thread only writes.

        Raises:
            MessageTooLarge: larger than `max_message_bytes`.
            EncodeError: a header AMQP cannot hold.
        """
        if len(message.body) > self._options.max_message_bytes and not message.is_relayed:
            properties = message.properties
            raise MessageTooLarge(
                f"the body has {len(message.body)} bytes, max_message_bytes is {self._options.max_message_bytes}:"
                " pass a reference to the data instead, or raise max_message_bytes"
            ).about(
                exchange=message.exchange,
                routing_key=message.routing_key,
                message_id=properties.correlation_id or properties.message_id or "",
            )
        entry = None
        if message.delay is not None and (entered := enter_wheel(message)) is not None:
            message, entry = entered
        head = encode_head(PUBLISH_CHANNEL, message)
        return Pending(message, head, self._clock.monotonic() + seconds, sink, index, entry)

    # --- operations ---

    def open(self, *, timeout: float) -> ServerInfo:
        """See `Transport.open`."""
        info = self._ask(None, timeout)
        assert isinstance(info, ServerInfo)
        return info

    def _ask(
        self, script: Callable[[], Script[Any]] | None, timeout: float | None, *, awaits_queues: bool = False
    ) -> Any:
        return self._ask_all([script], timeout, awaits_queues=awaits_queues)[0]

    def _ask_all(
        self,
        scripts: Iterable[Callable[[], Script[Any]] | None],
        timeout: float | None,
        *,
        awaits_queues: bool = False,
    ) -> list[Any]:
        """What each answers, all of them under way at once; raises for the first that fails."""
        core = self._waiting_core()
        seconds = self._options.publish_timeout if timeout is None else timeout
        deadline = self._clock.monotonic() + seconds
        waiters: list[Waiter] = []
        for script in scripts:
            waiters.append(Waiter())
            core.loop.put(core.request, Request(script, deadline, waiters[-1], awaits_queues=awaits_queues))
        for waiter in waiters:
            if not waiter.wait(deadline - self._clock.monotonic() + GRACE):
                raise BrokerUnreachable("the I/O thread did not answer in time")
            if waiter.error is not None:
                # The link's last error goes to all who wait: without this each raise would lengthen its traceback.
                raise waiter.error.with_traceback(None)
        return [waiter.value for waiter in waiters]

    def ensure_topology(
        self, topology: Topology, *, mode: TopologyMode, timeout: float | None = None, is_lasting: bool = True
    ) -> None:
        """See `Transport.ensure_topology`."""
        if mode is TopologyMode.NONE:
            return
        is_new = mode is TopologyMode.DECLARE and not is_lasting
        self._ask(lambda: ensure_script(topology, mode, is_new=is_new), timeout, awaits_queues=True)
        if mode is TopologyMode.DECLARE and is_lasting:
            core = self._started()
            core.loop.put(core.declared.add, topology)

    def compare_topology(self, topology: Topology, *, timeout: float | None = None) -> tuple[str, ...]:
        """See `Transport.compare_topology`."""
        lines: tuple[str, ...] = self._ask(lambda: compare_script(topology), timeout)
        return lines

    def bind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.bind`."""
        wanted = tuple(bindings)
        self._ask(lambda: bind_script(wanted), timeout)

    def unbind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """See `Transport.unbind`."""
        unwanted = tuple(bindings)
        self._ask(lambda: unbind_script(unwanted), timeout)

    def queue_status(self, queue_name: str, *, timeout: float | None = None) -> QueueStatus | None:
        """See `Transport.queue_status`."""
        status: QueueStatus | None = self._ask(lambda: status_script(queue_name), timeout)
        return status

    def queue_statuses(
        self, queue_names: Sequence[str], *, timeout: float | None = None
    ) -> list[QueueStatus | None]:
        """See `Transport.queue_statuses`. Each on a channel of its own, as a missing queue closes the channel."""
        found: list[QueueStatus | None] = []
        for at in range(0, len(queue_names), _ASKED_AT_ONCE):
            names = queue_names[at : at + _ASKED_AT_ONCE]
            found += self._ask_all([partial(status_script, name) for name in names], timeout)
        return found

    def purge_queue(self, queue_name: str, *, timeout: float | None = None) -> int:
        """See `Transport.purge_queue`."""
        return int(self._ask(lambda: purge_script(queue_name), timeout))

    def delete_queue(self, queue_name: str, *, timeout: float | None = None) -> None:
        """See `Transport.delete_queue`."""
        self._ask(lambda: delete_script(queue_name), timeout)

    def refused_rights(
        self, rights: Iterable[Right], *, timeout: float | None = None
    ) -> Mapping[Right, BrokerOperationError]:
        """See `Transport.refused_rights`."""
        wanted = tuple(rights)
        refused: dict[Right, BrokerOperationError] = self._ask(lambda: refused_rights_script(wanted), timeout)
        return refused

    # --- consuming ---

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
        return self._started().consume(
            queue_names, options, on_deliveries=on_deliveries, on_event=on_event, declare=declare
        )

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        core = self._core
        return core.statistics() if core is not None else TransportStatistics()

    # --- the end ---

    def close(self, *, timeout: float = 5.0) -> None:
        """See `Transport.close`."""
        with self._lock:
            self._is_closed = True
            core, self._core = self._core, None
        if core is not None:
            _end(core, timeout, self._clock)

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None and core.thread.is_alive:
            warnings.warn(
                f"{self!r} was not closed: call close()", ResourceWarning, stacklevel=2, source=self
            )
            core.loop.put(core.abort, "the transport was forgotten")
            core.thread.stop(0.0)

    def _after_fork(self) -> None:
        """In the child: forget the parent's thread and sockets; the next use starts anew."""
        self._lock = threading.Lock()  # the parent's may have been held by another thread
        self._core = None
        self._tally.renew()


def _end(core: Core, timeout: float, clock: Clock) -> None:
    deadline = clock.monotonic() + timeout
    waiter = Waiter()
    core.loop.put(core.begin_close, waiter)
    if core.thread.is_current:
        core.loop.put(core.abort, "the transport was closed")
        core.thread.stop(0.0)
        return
    if core.thread.is_alive and not waiter.wait(timeout):
        core.loop.put(core.abort, "the transport was closed")
    core.thread.stop(max(1.0, deadline - clock.monotonic()))


_is_registered = False


def _register_once() -> None:
    """Hooks for fork and exit, once per process and only when a transport is made."""
    global _is_registered  # noqa: PLW0603 - process-wide hooks cannot be undone, so one flag per process
    if _is_registered:
        return
    _is_registered = True
    after_fork_in_child(_after_fork_in_child)
    # threading waits for our (non-daemon) threads before atexit functions run; this hook runs before that wait.
    register: Callable[[Callable[[], None]], None] = threading._register_atexit  # type: ignore[attr-defined]
    register(_close_all)


def _after_fork_in_child() -> None:
    for transport in tuple(_live):
        transport._after_fork()
    for core in tuple(_cores):
        core.abandon()


def _close_all() -> None:
    for transport in tuple(_live):
        with contextlib.suppress(Exception):
            transport.close(timeout=EXIT_TIMEOUT)
