"""A consumer of queues on a connection of its own.

Life: connecting → preparing (queues looked for or declared) → consuming ⇄ paused → closed; after each loss it starts
again, on a new channel with a new epoch. See `docs/explanation/connections.md`, "A consumer". `settle`, `pause`,
`resume`, `set_prefetch` and `close` come through the door from any thread; everything else runs on the I/O thread.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika import spec

from amqp_routing import Topology
from amqp_tasks.clock import Clock
from amqp_tasks.errors import BrokerConnectionError, BrokerOperationError, TopologyMismatch
from amqp_tasks.transport._contract import (
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    Settlement,
)
from amqp_tasks.transport.rabbitmq._connection import Backoff, Link, LinkState
from amqp_tasks.transport.rabbitmq._errors import operation_error, reply_of
from amqp_tasks.transport.rabbitmq._fastwire import ChannelSink, FastConnection, FastDelivery
from amqp_tasks.transport.rabbitmq._loop import IOThread, Waiter
from amqp_tasks.transport.rabbitmq._operations import Operation
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._settling import SettleLedger
from amqp_tasks.transport.rabbitmq._suspects import is_suspicious
from amqp_tasks.transport.rabbitmq._topology import presence_script

__all__ = ("RabbitConsumer",)

LOGGER = logging.getLogger(__name__)

CONSUME_CHANNEL = 1
SETUP_TIMEOUT = 10.0

_tags = itertools.count(1)


class _DeliverySink(ChannelSink):
    def __init__(self, consumer: RabbitConsumer, *, epoch: int) -> None:
        super().__init__(epoch=epoch)
        self._consumer = consumer

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        self._consumer._handle_deliveries(batch)


class RabbitConsumer(Consumer):
    """See `Consumer` and the module's docstring."""

    def __init__(
        self,
        thread: IOThread,
        transport_options: TransportOptions,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        clock: Clock,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None,
        on_closed: Callable[[RabbitConsumer], None],
    ) -> None:
        if options.prefetch < 1:
            raise ValueError(f"prefetch is {options.prefetch}, must be at least 1")
        self._thread, self._loop = thread, thread.loop
        self._queue_names = tuple(dict.fromkeys(queue_names))
        self._options, self._declare = options, declare
        self._on_deliveries, self._on_event, self._on_closed = on_deliveries, on_event, on_closed
        self.delivered = 0
        self.stale_settlements = 0
        self.is_closed = False
        self._is_paused = False
        self._is_failed = False
        self._prefetch = options.prefetch
        self._epoch = 0
        self._channel: Any = None
        self._sink: _DeliverySink | None = None
        self._ledger = SettleLedger(CONSUME_CHANNEL)
        self._tags: dict[str, str] = {}  # consumer tag → queue name, on the present channel
        self._absent: set[str] = set()  # told as CANCELLED, looked for again
        self._deferred: list[
            str
        ] = []  # missed on the present channel: looked for after the others, by a timer
        self._told_consuming = self._was_consuming = self._ever_consumed = False
        self._backoff = Backoff()
        self._is_busy = False  # a cancel/consume sequence is under way
        self._again = False  # …and another is wanted after it
        self._operation: Operation | None = None
        self._retry_timer: Any = None
        # Filled by any thread, emptied by ours: a deque's append and popleft are atomic.
        self._settlements: deque[tuple[FastDelivery, Settlement]] = deque()
        self._is_flush_armed = self._is_flush_urgent = False
        self._flush_timer: Any = None
        self._is_handing_out = False
        self._closing: list[Waiter] = []
        self._link = Link(
            self._loop,
            transport_options,
            name="amqp-tasks consumer",
            clock=clock,
            on_open=self._on_open,
            on_lost=self._on_lost,
            on_refused=self._fail,
        )

    def start(self) -> None:
        """Connect. Owner thread only."""
        self._link.need()

    @property
    def connects(self) -> int:
        """How many connections were made."""
        return self._link.connects

    # --- any thread ---

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """See `Consumer.settle`."""
        assert isinstance(delivery, FastDelivery)
        if delivery.is_settled:
            raise RuntimeError(
                f"delivery {delivery.delivery_tag} of {delivery.queue_name!r} was settled before"
            )
        delivery.is_settled = True
        if self._options.no_ack:
            return
        self._settlements.append((delivery, settlement))
        if self._is_handing_out:
            return  # it is looked at after the hand-out: the flag goes down before that, and ours was appended before
        if self._are_many_gathered:
            if not self._is_flush_urgent:
                self._is_flush_urgent = True
                self._loop.put(self._flush_now)
        elif not self._is_flush_armed:
            self._is_flush_armed = True
            self._loop.put(self._arm_flush)

    @property
    def _are_many_gathered(self) -> bool:
        return len(self._settlements) * 4 >= self._prefetch

    def set_prefetch(self, prefetch: int) -> None:
        """See `Consumer.set_prefetch`."""
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}, must be at least 1")
        self._loop.put(self._do_set_prefetch, prefetch)

    def pause(self) -> None:
        """See `Consumer.pause`."""
        self._loop.put(self._do_pause, True)

    def resume(self) -> None:
        """See `Consumer.resume`."""
        self._loop.put(self._do_pause, False)

    def close(self, *, timeout: float) -> None:
        """See `Consumer.close`."""
        if self._thread.is_current:
            self._do_close(None)
            self._loop.call_guarded(timeout, lambda: self._cut(None))
            return
        waiter = Waiter()
        self._loop.put(self._do_close, waiter)
        if not self._thread.is_alive:
            return
        if not waiter.wait(timeout):
            self._loop.put(self._cut)
            waiter.wait(1.0)

    # --- the connection ---

    def _on_open(self, connection: FastConnection) -> None:
        self._open_channel(connection)

    def _open_channel(self, connection: FastConnection) -> None:
        channel = connection.channel(CONSUME_CHANNEL, on_open_callback=self._on_channel_open)
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_cancel_callback(self._on_cancelled)
        self._channel = channel
        self._loop.call_guarded(SETUP_TIMEOUT, partial(self._check_setup, channel))

    def _check_setup(self, channel: Any) -> None:
        if channel is self._channel and self._sink is None:
            self._link.drop()

    def _on_channel_open(self, channel: Any) -> None:
        connection = self._link.connection
        if channel is not self._channel or connection is None:
            return
        self._epoch += 1
        self._ledger = SettleLedger(CONSUME_CHANNEL)
        self._sink = connection.sinks[CONSUME_CHANNEL] = _DeliverySink(self, epoch=self._epoch)
        self._tags.clear()
        self._told_consuming = False
        self._is_busy = self._again = False
        self._deferred.clear()
        self._reconcile()

    def _on_lost(self, error: BrokerConnectionError) -> None:
        self._drop_channel()
        if self._closing:
            self._finish_close()  # nothing is left to say goodbye to
            return
        code, _text = reply_of(error.__cause__)
        if is_suspicious(code) and not self._was_consuming:
            # Closed over what we asked for, e.g. an exclusive consumer of a quorum queue (540): it would be again.
            self._fail(operation_error("consuming", error.__cause__ or error))
        else:
            self._tell(ConsumerState.LOST, error=error)

    def _on_channel_closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel:
            return
        connection = self._link.connection
        was_consuming = self._told_consuming
        self._was_consuming = was_consuming
        self._drop_channel()
        if connection is None or not connection.is_open:
            return  # the connection's own end follows
        if self._closing:
            self._finish_close()
            return
        error = operation_error("consuming", reason)
        code, text = reply_of(reason)
        if self._is_final(code, text, was_consuming=was_consuming):
            self._fail(error)
            return
        self._tell(ConsumerState.LOST, error=error)
        self._later(partial(self._reopen, connection))

    def _is_final(self, code: int, text: str, *, was_consuming: bool) -> bool:
        if code in {403, 405}:
            # A queue or consumer that was exclusively ours is still held by our own lost connection, until the broker
            # notices that it is gone.
            return not (self._ever_consumed and "exclusive" in text)
        return code == 406 and not was_consuming and "acknowledgement" not in text

    def _reopen(self, connection: FastConnection) -> None:
        if connection is self._link.connection and self._channel is None and connection.is_open:
            self._open_channel(connection)

    def _drop_channel(self) -> None:
        connection = self._link.connection
        if connection is not None:
            connection.sinks.pop(CONSUME_CHANNEL, None)
        self._channel = self._sink = None
        self._tags.clear()
        self._epoch += 1  # whatever is settled from now on is stale
        self._is_busy = self._again = False
        self._told_consuming = False

    def _later(self, work: Callable[[], None]) -> None:
        if self._retry_timer is not None:
            self._loop.remove_timeout(self._retry_timer)
        self._retry_timer = self._loop.call_guarded(self._backoff.next(), work)

    # --- consuming what is wanted ---

    @property
    def _wanted(self) -> list[str]:
        if self._is_paused or self._closing or self._is_failed:
            return []
        consumed = set(self._tags.values())
        return [name for name in self._queue_names if name not in consumed]

    def _reconcile(self) -> None:
        """Bring the channel's consumers to what is wanted: one step at a time, coming back here after each."""
        if self._channel is None or self._sink is None or not self._channel.is_open:
            return
        if self._is_busy:
            self._again = True
            return
        if self._is_paused or self._closing:
            self._cancel_all(self._reconciled)
            return
        wanted = self._wanted
        if not wanted:
            self._tell_consuming()
            return
        self._is_busy = True
        self._find_queues(wanted)

    def _reconciled(self) -> None:
        self._is_busy = False
        if self._again or self._wanted:
            self._again = False
            self._reconcile()

    def _tell_consuming(self) -> None:
        if self._tags and not self._told_consuming:
            self._told_consuming = self._ever_consumed = True
            self._backoff.reset()
            self._tell(ConsumerState.CONSUMING)

    def _find_queues(self, names: Sequence[str]) -> None:
        """Which of the queues exist? A consume of a missing one would close the channel and stale its neighbours."""
        connection = self._link.connection
        assert connection is not None
        # Those that were missing wait for their own turn: looking for one may take as long as an operation may.
        deferred = [name for name in self._deferred if name in names]
        names = [name for name in names if name not in deferred] or deferred
        found: tuple[list[str], list[str]] = ([], [])
        self._operation = Operation(
            self._loop,
            connection,
            presence_script(names, self._declare, *found),
            timeout=SETUP_TIMEOUT,
            on_done=partial(self._on_found, self._epoch, names, found),
        )
        self._operation.start()

    def _on_found(
        self,
        epoch: int,
        names: Sequence[str],
        found: tuple[list[str], list[str]],
        _result: Any,
        error: Exception | None,
    ) -> None:
        if epoch != self._epoch or self._channel is None:
            return
        present, absent = found
        if isinstance(error, TopologyMismatch) or (
            isinstance(error, BrokerOperationError) and self._is_final_find(error)
        ):
            self._fail(error)
            return
        if error is not None:
            # The broker cannot say of one queue: it is looked for again, and those after it now. (A broker that
            # answers nothing at all is the heartbeat's case.)
            rest = [name for name in names if name not in present and name not in absent]
            absent += rest[:1]
            self._again = self._again or any(name not in self._deferred for name in rest[1:])
        # The one just asked for goes last, so that one without an answer does not hide those after it.
        self._deferred = [name for name in self._deferred if name not in present and name not in absent]
        self._deferred += absent
        for name in absent:
            self._note_absent(name)
        if absent:
            self._later(self._look_again)
        self._consume(list(present))

    def _is_final_find(self, error: BrokerOperationError) -> bool:
        code = error.reply_code
        return code in {403, 405, 406} and self._is_final(code, error.reply_text, was_consuming=False)

    def _note_absent(self, name: str) -> None:
        if name not in self._absent:
            self._absent.add(name)
            self._tell(ConsumerState.CANCELLED, queue_name=name)

    def _look_again(self) -> None:
        self._retry_timer = None
        self._reconcile()

    def _consume(self, names: list[str]) -> None:
        if self._is_paused or self._closing or not names:
            self._finish_consuming()
            return
        self._channel.basic_qos(
            prefetch_count=self._prefetch, global_qos=False, callback=partial(self._on_qos, names)
        )

    def _consume_next(self, names: list[str]) -> None:
        if self._channel is None or not self._channel.is_open:
            return
        if not names or self._is_paused or self._closing:
            self._finish_consuming()
            return
        name = names.pop(0)
        tag = f"amqp-tasks.{next(_tags)}"
        assert self._sink is not None
        # Deliveries may come in the same read as consume-ok: the sink must know the tag before.
        self._sink.queue_names[tag.encode()] = name
        self._tags[tag] = name
        arguments = self._options.arguments.get(name)
        self._channel.basic_consume(
            name,
            _unused,
            auto_ack=self._options.no_ack,
            exclusive=self._options.exclusive,
            consumer_tag=tag,
            arguments=dict(arguments) if arguments else None,
            callback=partial(self._on_consuming, name, names),
        )

    def _on_qos(self, names: list[str], _frame: Any) -> None:
        self._consume_next(names)

    def _on_consuming(self, name: str, names: list[str], _frame: Any) -> None:
        if name in self._absent:
            self._absent.discard(name)
            self._told_consuming = False
        self._consume_next(names)

    def _finish_consuming(self) -> None:
        self._is_busy = False
        if self._again:
            self._again = False
            self._reconcile()
        elif not self._wanted:
            self._tell_consuming()

    def _cancel_all(self, then: Callable[[], None]) -> None:
        tags = list(self._tags)
        if not tags:
            self._after_cancel(then)
            return
        self._is_busy = True
        left = len(tags)

        def on_cancelled(tag: str, _frame: Any) -> None:
            nonlocal left
            self._forget_tag(tag)
            left -= 1
            if not left:
                self._after_cancel(then)

        for tag in tags:
            # Not basic_cancel: pika drops the call, callback and all, for a consumer that it no longer knows.
            self._channel._rpc(
                spec.Basic.Cancel(consumer_tag=tag, nowait=False),
                partial(on_cancelled, tag),
                [(spec.Basic.CancelOk, {"consumer_tag": tag})],
            )

    def _forget_tag(self, tag: str) -> None:
        """After cancel-ok nothing comes under this tag any more."""
        self._tags.pop(tag, None)
        if self._sink is not None:
            self._sink.queue_names.pop(tag.encode(), None)
        if self._channel is not None:
            self._channel._cleanup_consumer_ref(tag)

    def _after_cancel(self, then: Callable[[], None]) -> None:
        if self._closing:
            self._finish_close()
        else:
            then()

    def _on_cancelled(self, frame: Any) -> None:
        """`basic.cancel` from the broker: the queue was deleted, or its leader moved."""
        tag = str(frame.method.consumer_tag)
        name = self._tags.pop(tag, None)
        if self._sink is not None:
            self._sink.queue_names.pop(tag.encode(), None)
        if name is None or self._closing:
            return
        self._told_consuming = False
        self._note_absent(name)
        self._later(self._look_again)

    # --- wishes from other threads ---

    def _do_pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self._told_consuming = False
            self._reconcile()

    def _do_set_prefetch(self, prefetch: int) -> None:
        if prefetch == self._prefetch:
            return
        self._prefetch = prefetch
        if self._channel is None or self._sink is None or self._is_paused or self._closing:
            return
        if self._is_busy:
            # The sequence under way may have passed its qos: run another one after it.
            self._loop.call_guarded(0.01, partial(self._renew, prefetch))
            return
        self._renew(prefetch)

    def _renew(self, prefetch: int) -> None:
        if prefetch != self._prefetch or self._channel is None or self._is_paused or self._closing:
            return
        if self._is_busy:
            self._loop.call_guarded(0.01, partial(self._renew, prefetch))
            return
        self._cancel_all(partial(self._consume_again, list(self._tags.values())))

    def _consume_again(self, names: list[str]) -> None:
        """What was consumed a moment ago need not be looked for; the rest follows."""
        names = [name for name in names if name not in self._absent]
        self._again = self._again or len(names) < len(self._wanted)
        self._consume(names)

    # --- deliveries and settlements ---

    def _handle_deliveries(self, batch: list[FastDelivery]) -> None:
        self.delivered += len(batch)
        self._is_handing_out = True
        try:
            self._on_deliveries(batch)
        except Exception:
            LOGGER.exception("on_deliveries raised", extra={"action": "callback_error"})
        self._is_handing_out = False
        # Few of them wait: who was just woken by this hand-out would compete with the writing of their ack.
        if self._are_many_gathered:
            self._flush()
        elif self._settlements and not self._is_flush_armed:
            self._is_flush_armed = True
            self._arm_flush(None)

    def _arm_flush(self, _none: Any) -> None:
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_guarded(self._options.settle_delay, self._flush_by_timer)

    def _flush_by_timer(self) -> None:
        self._flush_timer = None
        # Before the deque is read: a settlement that comes in from now on arms anew, at worst for nothing.
        self._is_flush_armed = False
        if self._settlements:
            self._flush()
            # More are to be expected, and arming from here spares their threads the waking of this one.
            self._is_flush_armed = True
            self._arm_flush(None)

    def _flush_now(self, _none: Any) -> None:
        self._flush()

    def _flush(self) -> None:
        self._is_flush_urgent = False  # before the deque is read: from now on it is asked for anew
        settlements: dict[int, Settlement] = {}
        source, epoch = self._settlements, self._epoch
        for _ in range(len(source)):
            delivery, settlement = source.popleft()
            if delivery.epoch == epoch:
                settlements[delivery.delivery_tag] = settlement
            else:
                self.stale_settlements += 1
        connection = self._link.connection
        if settlements and connection is not None and self._sink is not None:
            frames = self._ledger.frames(settlements)
            connection.emit(b"".join(frames), len(frames))

    # --- events and the end ---

    def _tell(
        self, state: ConsumerState, *, queue_name: str | None = None, error: Exception | None = None
    ) -> None:
        try:
            self._on_event(ConsumerEvent(state=state, epoch=self._epoch, queue_name=queue_name, error=error))
        except Exception:
            LOGGER.exception("on_event raised", extra={"action": "callback_error"})

    def _fail(self, error: Exception) -> None:
        if self._is_failed or self.is_closed:
            return
        self._is_failed = True
        self._drop_channel()
        self._link.cut()
        self._tell(ConsumerState.FAILED, error=error)
        self._over()

    def _do_close(self, waiter: Waiter | None) -> None:
        if self.is_closed:
            if waiter is not None:
                waiter.succeed()
            return
        already = bool(self._closing)
        self._closing.append(waiter or Waiter())
        if already:
            return
        if self._channel is None or self._sink is None or not self._channel.is_open:
            self._finish_close()
        elif self._operation is not None and not self._operation.is_over:
            self._finish_close()  # looking for queues may take long, and is for nothing now
        elif not self._is_busy:
            self._cancel_all(self._reconciled)
        else:
            self._again = True

    def _finish_close(self) -> None:
        self._flush()
        connection = self._link.connection
        if self._link.state is LinkState.CLOSED:
            return
        if connection is not None and connection.is_open:
            connection.add_on_close_callback(lambda _connection, _reason: self._closed())
            self._link.close()
        else:
            self._link.cut()
            self._closed()

    def _cut(self, _none: Any) -> None:
        """The broker took too long to say goodbye."""
        if not self.is_closed:
            self._link.cut()
            self._closed()

    def _closed(self) -> None:
        if self.is_closed:
            return
        self._drop_channel()
        self._tell(ConsumerState.CLOSED)
        self._over()

    def _over(self) -> None:
        self.is_closed = True
        if self._retry_timer is not None:
            self._loop.remove_timeout(self._retry_timer)
            self._retry_timer = None
        self._on_closed(self)
        for waiter in self._closing:
            waiter.succeed()
        self._closing.clear()


def _unused(*_arguments: Any) -> None:
    """pika wants a callback; deliveries never reach it."""
