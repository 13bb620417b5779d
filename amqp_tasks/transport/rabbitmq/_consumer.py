"""A consumer of queues on a connection of its own.

Life: connecting → preparing (queues looked for or declared) → consuming ⇄ paused → closed; after each loss it starts
again, on a new channel with a new epoch. See `docs/explanation/connections.md`, "A consumer". `settle`, `pause`,
`resume`, `set_prefetch` and `close` come through the door from any thread; everything else runs on the I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
from amqp_tasks.transport._streams import StreamPlaces
from amqp_tasks.transport.rabbitmq._connection import Backoff, Link, LinkState
from amqp_tasks.transport.rabbitmq._errors import operation_error, reply_of
from amqp_tasks.transport.rabbitmq._fastwire import ChannelSink, FastConnection, FastDelivery
from amqp_tasks.transport.rabbitmq._loop import IOThread, Waiter
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._patience import Patience
from amqp_tasks.transport.rabbitmq._search import QueueSearch
from amqp_tasks.transport.rabbitmq._settlements import Settlements
from amqp_tasks.transport.rabbitmq._subscriptions import Subscriptions
from amqp_tasks.transport.rabbitmq._suspects import is_suspicious

__all__ = ("RabbitConsumer",)

LOGGER = logging.getLogger(__name__)

CONSUME_CHANNEL = 1


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
        self._options = options
        self._places = StreamPlaces(options.arguments)
        self._on_deliveries, self._on_event, self._on_closed = on_deliveries, on_event, on_closed
        self.delivered = 0
        self.is_closed = False
        self._is_paused = False
        self._is_failed = False
        self._prefetch = options.prefetch
        self._epoch = 0
        self._channel: Any = None
        self._subscriptions: Subscriptions | None = None  # of the present channel, once that is open
        self._absent: set[str] = set()  # told as CANCELLED, looked for again
        self._told_consuming = self._was_consuming = self._ever_consumed = False
        self._backoff = Backoff()
        self._is_busy = False  # a cancel/consume sequence is under way
        self._again = False  # …and another is wanted after it
        self._setup_timeout = transport_options.setup_timeout
        self._patience = Patience(self._loop, self._setup_timeout, self._give_up)
        self._search = QueueSearch(self._loop, declare, timeout=self._setup_timeout)
        self._retry_timer: Any = None
        self._settlements = Settlements(
            self._loop, channel=CONSUME_CHANNEL, delay=options.settle_delay, prefetch=options.prefetch
        )
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

    @property
    def stale_settlements(self) -> int:
        """How many settlements came for deliveries of a channel that was gone."""
        return self._settlements.stale

    # --- any thread ---

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """See `Consumer.settle`."""
        assert isinstance(delivery, FastDelivery)
        if delivery.is_settled:
            raise RuntimeError(
                f"delivery {delivery.delivery_tag} of {delivery.queue_name!r} was settled before"
            )
        delivery.is_settled = True
        if not self._options.no_ack:
            self._settlements.add(delivery, settlement)

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
        self._patience.expect("channel.open")

    def _give_up(self, why: str) -> None:
        self._link.drop(why)

    def _on_channel_open(self, channel: Any) -> None:
        connection = self._link.connection
        if channel is not self._channel or connection is None:
            return
        self._patience.rest()
        self._epoch += 1
        self._settlements.begin(self._epoch, connection.emit)
        sink = connection.sinks[CONSUME_CHANNEL] = _DeliverySink(self, epoch=self._epoch)
        self._subscriptions = Subscriptions(
            channel,
            sink,
            self._options,
            self._places,
            self._patience,
            is_wanted=lambda: not self._is_paused and not self._closing,
            on_consuming=self._on_consuming,
        )
        self._told_consuming = False
        self._is_busy = self._again = False
        self._search.forget()
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
        self._channel = self._subscriptions = None
        self._patience.rest()
        self._settlements.end()
        self._epoch += 1  # whatever is settled from now on is stale
        self._is_busy = self._again = False
        self._told_consuming = False

    def _later(self, work: Callable[[], None]) -> None:
        if self._retry_timer is not None:
            self._loop.remove_timeout(self._retry_timer)
        self._retry_timer = self._loop.call_guarded(self._backoff.next(), work)

    # --- consuming what is wanted ---

    @property
    def _consumed(self) -> list[str]:
        return self._subscriptions.queue_names if self._subscriptions is not None else []

    @property
    def _wanted(self) -> list[str]:
        if self._is_paused or self._closing or self._is_failed:
            return []
        consumed = self._consumed
        return [name for name in self._queue_names if name not in consumed]

    def _reconcile(self) -> None:
        """Bring the channel's consumers to what is wanted: one step at a time, coming back here after each."""
        if self._channel is None or self._subscriptions is None or not self._channel.is_open:
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
        connection = self._link.connection
        assert connection is not None
        self._search.start(connection, wanted, partial(self._on_found, self._epoch))

    def _reconciled(self) -> None:
        self._is_busy = False
        if self._again or self._wanted:
            self._again = False
            self._reconcile()

    def _tell_consuming(self) -> None:
        if self._consumed and not self._told_consuming:
            self._told_consuming = self._ever_consumed = True
            self._backoff.reset()
            self._tell(ConsumerState.CONSUMING)

    def _on_found(
        self,
        epoch: int,
        present: Sequence[str],
        absent: Sequence[str],
        is_more_now: bool,
        error: Exception | None,
    ) -> None:
        if epoch != self._epoch or self._channel is None:
            return
        if isinstance(error, TopologyMismatch) or (
            isinstance(error, BrokerOperationError) and self._is_final_find(error)
        ):
            self._fail(error)
            return
        self._again = self._again or is_more_now
        for name in absent:
            self._note_absent(name)
        if absent:
            self._later(self._look_again)
        self._consume(present)

    def _is_final_find(self, error: BrokerOperationError) -> bool:
        code = error.reply_code
        return code in {403, 405, 406} and self._is_final(code, error.reply_text, was_consuming=False)

    def _note_absent(self, name: str) -> None:
        if name not in self._absent:
            self._absent.add(name)
            self._places.begin_again(name)
            self._tell(ConsumerState.CANCELLED, queue_name=name)

    def _look_again(self) -> None:
        self._retry_timer = None
        self._reconcile()

    def _consume(self, names: Sequence[str]) -> None:
        assert self._subscriptions is not None
        self._subscriptions.consume(names, self._prefetch, self._finish_consuming)

    def _on_consuming(self, name: str) -> None:
        if name in self._absent:
            self._absent.discard(name)
            self._told_consuming = False

    def _finish_consuming(self) -> None:
        self._is_busy = False
        if self._again:
            self._again = False
            self._reconcile()
        elif not self._wanted:
            self._tell_consuming()

    def _cancel_all(self, then: Callable[[], None]) -> None:
        assert self._subscriptions is not None
        self._is_busy = bool(self._consumed)
        self._subscriptions.cancel_all(partial(self._after_cancel, then))

    def _after_cancel(self, then: Callable[[], None]) -> None:
        if self._closing:
            self._finish_close()
        else:
            then()

    def _on_cancelled(self, frame: Any) -> None:
        """`basic.cancel` from the broker: the queue was deleted, or its leader moved."""
        if self._subscriptions is None:
            return
        name = self._subscriptions.forget(str(frame.method.consumer_tag))
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
        self._prefetch = self._settlements.prefetch = prefetch
        if self._channel is None or self._subscriptions is None or self._is_paused or self._closing:
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
        self._cancel_all(partial(self._consume_again, self._consumed))

    def _consume_again(self, names: list[str]) -> None:
        """What was consumed a moment ago need not be looked for; the rest follows."""
        names = [name for name in names if name not in self._absent]
        self._again = self._again or len(names) < len(self._wanted)
        self._consume(names)

    # --- deliveries, events, and the end ---

    def _handle_deliveries(self, batch: list[FastDelivery]) -> None:
        self.delivered += len(batch)
        self._places.note(batch)
        self._settlements.during(partial(self._hand_out, batch))

    def _hand_out(self, batch: list[FastDelivery]) -> None:
        try:
            self._on_deliveries(batch)
        except Exception:
            LOGGER.exception("on_deliveries raised", extra={"action": "callback_error"})

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
        if self._channel is None or self._subscriptions is None or not self._channel.is_open:
            self._finish_close()
        elif self._search.is_under_way:
            self._finish_close()  # looking for queues may take long, and is for nothing now
        elif not self._is_busy:
            self._cancel_all(self._reconciled)
        else:
            self._again = True

    def _finish_close(self) -> None:
        self._settlements.flush()
        connection = self._link.connection
        if self._link.state is LinkState.CLOSED:
            return
        if connection is not None and connection.is_open:
            connection.add_on_close_callback(lambda _connection, _reason: self._closed())
            self._link.close()
            self._loop.call_guarded(self._setup_timeout, lambda: self._cut(None))
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
