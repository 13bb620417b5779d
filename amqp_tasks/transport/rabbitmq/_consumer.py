"""A consumer of queues on a connection of its own.

Life: connecting → preparing (queues looked for or declared) → consuming ⇄ paused → closed; after each loss it starts
again, on a new channel with a new epoch. See `docs/explanation/connections.md`, "A consumer". `settle`, `pause`,
`resume`, `set_prefetch` and `close` come through the door from any thread; everything else runs on the I/O thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from amqp_routing import QueueType, Topology
from amqp_tasks.clock import Clock
from amqp_tasks.errors import BrokerOperationError, TopologyMismatch
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
from amqp_tasks.transport.rabbitmq._connection import Backoff, Link
from amqp_tasks.transport.rabbitmq._consume_channel import ConsumeChannel, is_final_refusal
from amqp_tasks.transport.rabbitmq._fastwire import FastDelivery
from amqp_tasks.transport.rabbitmq._loop import IOThread, Waiter
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._renewal import RIGHT_FROM, Renewal
from amqp_tasks.transport.rabbitmq._roll_call import RollCall
from amqp_tasks.transport.rabbitmq._search import QueueSearch

__all__ = ("RabbitConsumer",)

LOGGER = logging.getLogger(__name__)

_LOOK_EVERY = 0.005
"""Seconds between looks whether a full socket has taken all."""
_DRAIN_EVERY, _DRAIN_LOOKS = 0.01, 100
"""Seconds between looks whether nothing is open any more, and how many there are before consuming goes on."""


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
        keep: Callable[[Link], bool],
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
        self._paused_queues = frozenset(options.paused_queues)
        self._is_failed = False
        self._prefetch = options.prefetch
        self._channel = ConsumeChannel(
            self._loop,
            transport_options,
            options,
            self._places,
            clock=clock,
            owner=self,
            keep=keep if options.is_brief else None,
        )
        self._absent: set[str] = set()  # told as CANCELLED, looked for again
        # Confirmed on this channel, and not cancelled by the broker; read by any thread, name by name.
        self._confirmed: set[str] = set()
        self._told_consuming = False
        self._backoff = Backoff()
        self._is_busy = False  # a cancel/consume sequence is under way
        self._again = False  # …and another is wanted after it
        self._renewal = Renewal(self._loop, expected=lambda: self._expected, due=self._renew_channel)
        self._is_renewal_due = False  # …and waits for `resume`
        self._delivered_before = 0  # on former channels
        self._uncounted = _uncounted(options, declare)
        self._roll_call = RollCall(
            self._loop,
            timeout=transport_options.setup_timeout,
            tags=self._tags_to_call,
            on_lost=self._consume_lost,
        )
        self._search = QueueSearch(self._loop, declare, timeout=transport_options.setup_timeout)
        self._retry_timer: Any = None
        self._closing: list[Waiter] = []
        self._flushing: set[Waiter] = set()

    @property
    def is_brief(self) -> bool:
        """See `ConsumerOptions.is_brief`."""
        return self._options.is_brief

    def start(self, link: Link | None = None) -> None:
        """Connect, or go on with what another has left. Owner thread only."""
        if link is None:
            self.link.need()
        else:
            self._channel.adopt(link)

    @property
    def link(self) -> Link:
        """Its connection."""
        return self._channel.link

    @property
    def connects(self) -> int:
        """How often it has connected."""
        return self._channel.connects

    @property
    def stale_settlements(self) -> int:
        """How many settlements came for deliveries of a channel that was gone."""
        return self._channel.settlements.stale

    # --- any thread ---

    @property
    def queues(self) -> ConsumedQueues:
        """See `Consumer.queues`."""
        if self.is_closed:
            return ConsumedQueues(missing=self._queue_names if self._is_failed else ())
        active, confirmed = self._active, self._confirmed
        # On a channel that came during a pause nothing was asked for yet: what we hold back ourselves is not missing.
        holds_back = self._is_paused and self._channel.is_ready
        consumed = tuple(
            name for name in active if name in confirmed or (holds_back and name not in self._absent)
        )
        missing = tuple(name for name in active if name not in consumed)
        # Without a channel nothing is looked for.
        absent = tuple(name for name in missing if name in self._absent) if self._channel.is_ready else ()
        return ConsumedQueues(consumed=consumed, missing=missing, absent=absent)

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """See `Consumer.settle`."""
        assert isinstance(delivery, FastDelivery)
        if delivery.is_settled:
            raise RuntimeError(
                f"delivery {delivery.delivery_tag} of {delivery.queue_name!r} was settled before"
            )
        delivery.is_settled = True
        if not self._options.no_ack:
            self._channel.settlements.add(delivery, settlement)

    def flush(self, *, timeout: float) -> None:
        """See `Consumer.flush`."""
        waiter = Waiter()
        self._loop.put(self._do_flush, waiter)
        waiter.wait(timeout)

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

    def pause_queues(self, queue_names: Collection[str]) -> None:
        """See `Consumer.pause_queues`."""
        self._loop.put(self._do_pause_queues, frozenset(queue_names))

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

    # --- from the channel; see `ChannelOwner` ---

    def is_wanted(self) -> bool:
        """See `ChannelOwner.is_wanted`."""
        return not self._is_paused and not self._closing and not self._is_failed

    def on_ready(self) -> None:
        """See `ChannelOwner.on_ready`."""
        self._search.forget()
        self._confirmed.clear()
        self._delivered_before = self.delivered
        if not self._options.exclusive:
            assert self._channel.connection is not None
            self._roll_call.begin(self._channel.connection)
        if self._may_dangle:
            self._renewal.begin()
        self._reconcile()

    def on_consuming(self, queue_name: str) -> None:
        """See `ChannelOwner.on_consuming`."""
        self._confirmed.add(queue_name)
        if queue_name in self._absent:
            self._absent.discard(queue_name)
            self._told_consuming = False
            LOGGER.info("queue %r is consumed now", queue_name, extra=_about(queue_name))

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        """See `ChannelOwner.on_deliveries`."""
        self.delivered += len(batch)
        if self._renewal.silent:
            self._renewal.silent.difference_update([delivery.queue_name for delivery in batch])
        self._places.note(batch)
        self._channel.settlements.during(partial(self._hand_out, batch))

    def on_cancelled(self, queue_name: str) -> None:
        """See `ChannelOwner.on_cancelled`: the queue was deleted, its leader moved, or a delivery was not acked in time."""
        if not self._closing:
            self._told_consuming = False
            self._note_absent(queue_name, "the broker cancelled its consumer")
            self._look_later()

    def on_refused(self, queue_name: str) -> None:
        """See `ChannelOwner.on_refused`."""
        self._search.suspect(queue_name)

    def on_lost(self, error: Exception) -> bool:
        """See `ChannelOwner.on_lost`."""
        self._is_busy = self._again = self._told_consuming = self._is_renewal_due = False
        self._confirmed.clear()
        self._renewal.stop()
        self._roll_call.stop()
        if self._closing:
            self._finish_close()  # nothing is left to say goodbye to
            return False
        self._tell(ConsumerState.LOST, error=error)
        return True

    def on_final(self, error: Exception) -> None:
        """See `ChannelOwner.on_final`."""
        if self._closing:
            self._finish_close()
        else:
            self._fail(error)

    # --- consuming what is wanted ---

    @property
    def _consumed(self) -> list[str]:
        subscriptions = self._channel.subscriptions
        return subscriptions.queue_names if subscriptions is not None else []

    @property
    def _wanted(self) -> list[str]:
        if not self.is_wanted():
            return []
        consumed = self._consumed
        return [name for name in self._active if name not in consumed]

    @property
    def _active(self) -> list[str]:
        return [name for name in self._queue_names if name not in self._paused_queues]

    def _reconcile(self) -> None:
        """Bring the channel's consumers to what is wanted: one step at a time, coming back here after each."""
        if not self._channel.is_ready:
            return
        if self._is_busy:
            self._again = True
            return
        if self._is_paused or self._closing:
            self._cancel(self._consumed, self._reconciled)
            return
        if surplus := self._paused_queues.intersection(self._consumed):
            self._cancel(surplus, self._reconciled)
            return
        wanted = self._wanted
        if not wanted:
            self._tell_consuming()
            return
        self._is_busy = True
        connection = self._channel.connection
        assert connection is not None
        self._search.start(connection, wanted, partial(self._on_found, self._channel.epoch))

    def _reconciled(self) -> None:
        self._is_busy = False
        if self._again or self._wanted:
            self._again = False
            self._reconcile()
        elif not self._is_paused:
            self._tell_consuming()

    def _tell_consuming(self) -> None:
        if (self._consumed or not self._active) and not self._told_consuming:
            self._told_consuming = True
            self._channel.has_consumed = self._channel.has_consumed or bool(self._consumed)
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
        if epoch != self._channel.epoch or not self._channel.is_ready:
            return
        if self._is_final_find(error):
            assert error is not None
            self._fail(error)
            return
        self._again = self._again or is_more_now
        for name in absent:
            self._note_absent(name, str(error) if error is not None else "it does not exist")
        if absent:
            self._look_later()
        self._consume(present)

    def _is_final_find(self, error: Exception | None) -> bool:
        return isinstance(error, TopologyMismatch) or (
            isinstance(error, BrokerOperationError)
            and is_final_refusal(error.reply_code, has_consumed=self._channel.has_consumed)
        )

    def _note_absent(self, name: str, why: str) -> None:
        self._confirmed.discard(name)
        if name not in self._absent:
            self._absent.add(name)
            self._places.begin_again(name)
            LOGGER.log(
                logging.DEBUG if self._options.exclusive else logging.WARNING,
                "queue %r cannot be consumed now: %s; it is looked for again until it can be", name, why,
                extra=_about(name),
            )  # fmt: skip
            self._tell(ConsumerState.CANCELLED, queue_name=name)

    def _look_later(self) -> None:
        if self._options.is_brief:
            return  # whoever looks is told; and a broker that has not done deleting closes the connection of who asks (541)
        self._stop_timer()
        self._retry_timer = self._loop.call_guarded(self._backoff.next(), self._look_again)

    def _look_again(self) -> None:
        self._retry_timer = None
        self._reconcile()

    def _stop_timer(self) -> None:
        if self._retry_timer is not None:
            self._loop.remove_timeout(self._retry_timer)
            self._retry_timer = None

    def _consume(self, names: Sequence[str]) -> None:
        assert self._channel.subscriptions is not None
        self._channel.subscriptions.consume(names, self._prefetch, self._finish_consuming)

    def _finish_consuming(self) -> None:
        self._is_busy = False
        if self._again:
            self._again = False
            self._reconcile()
        elif not self._wanted:
            self._tell_consuming()

    def _cancel(self, names: Collection[str], then: Callable[[], None]) -> None:
        assert self._channel.subscriptions is not None
        self._is_busy = bool(names)
        self._channel.subscriptions.cancel(names, partial(self._after_cancel, then))

    def _after_cancel(self, then: Callable[[], None]) -> None:
        if self._closing:
            self._finish_close()
        else:
            then()

    # --- what the broker has lost; see `RollCall` ---

    def _tags_to_call(self) -> dict[str, str]:
        subscriptions = self._channel.subscriptions
        if subscriptions is None or self._is_busy or not self._channel.is_ready or not self.is_wanted():
            return {}
        return {name: tag for name, tag in subscriptions.tags.items() if name not in self._uncounted}

    def _consume_lost(self, name: str, times: int, is_there: bool) -> None:
        if times > 1:
            self.link.drop(f"the broker has lost the consumer of queue {name!r} again")
        elif name in self._tags_to_call():
            self._told_consuming = False
            if is_there:
                self._confirmed.discard(name)
                LOGGER.warning(
                    "the broker has lost the consumer of queue %r; it is consumed anew",
                    name,
                    extra=_about(name),
                )
                self._tell(ConsumerState.CANCELLED, queue_name=name, is_queue_there=True)
            else:
                self._note_absent(name, "it is gone")
            self._cancel((name,), self._reconciled)

    # --- renewing the channel of a silent queue; see `Renewal` ---

    @property
    def _may_dangle(self) -> bool:
        server = self.link.server
        # One that must be alone would have to find its place again; a stream is not concerned.
        is_concerned = not self._options.exclusive and not self._places.are_any
        return is_concerned and server is not None and server.version < RIGHT_FROM

    @property
    def _expected(self) -> list[str]:
        """What something may come of, were it not for a pause."""
        return [name for name in self._active if name not in self._absent]

    @property
    def _has_open(self) -> bool:
        """Whether anything of what came on this channel is not settled."""
        open_ = self.delivered - self._delivered_before - self._channel.settlements.sent
        return bool(open_) and not self._options.no_ack

    def _renew_channel(self) -> None:
        if self._is_paused:
            self._is_renewal_due = True
        elif self._channel.is_ready and not self._is_busy and self.is_wanted():
            # Until the broker has answered, deliveries may still come.
            self._cancel(self._consumed, self._begin_drain)
        else:
            self._renewal.watch()

    def _begin_drain(self) -> None:
        self._is_busy = True
        self._drain(self._channel.epoch, _DRAIN_LOOKS)

    def _drain(self, epoch: int, looks: int) -> None:
        """Nothing is consumed: take another channel once nothing is open. Not for long, or slots would stand idle."""
        if epoch != self._channel.epoch or not self._channel.is_ready:
            return
        if self._closing:
            self._finish_close()
        elif self._has_open and looks:
            self._loop.call_guarded(_DRAIN_EVERY, partial(self._drain, epoch, looks - 1))
        elif self._has_open or not self.is_wanted():
            self._is_busy = False
            self._renewal.put_off()
            self._reconcile()
        else:
            self._is_busy = False
            self._renewal.stop()
            self._channel.renew()

    # --- wishes from other threads ---

    def _do_flush(self, waiter: Waiter) -> None:
        if self.is_closed:  # the loop may have ended, and nothing that is scheduled would run
            waiter.succeed()
            return
        self._flushing.add(waiter)
        self._channel.settlements.flush()
        self._await_written(waiter)

    def _await_written(self, waiter: Waiter) -> None:
        if waiter not in self._flushing:
            return
        connection = self._channel.connection
        if connection is None or connection.has_written:
            self._flushing.remove(waiter)
            waiter.succeed()
        else:
            self._loop.call_guarded(_LOOK_EVERY, partial(self._await_written, waiter))

    def _do_pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self._told_consuming = False
            if self._is_renewal_due and not is_paused:
                self._is_renewal_due = False
                if self._channel.is_ready and not self._is_busy:
                    self._begin_drain()
                    return
                self._renewal.watch()
            self._reconcile()

    def _do_pause_queues(self, names: frozenset[str]) -> None:
        if names != self._paused_queues:
            self._paused_queues = names
            self._confirmed -= names
            self._told_consuming = False
            self._reconcile()

    def _do_set_prefetch(self, prefetch: int) -> None:
        if prefetch == self._prefetch:
            return
        self._prefetch = self._channel.settlements.prefetch = prefetch
        if not self._channel.is_ready or not self.is_wanted():
            return
        if self._is_busy:
            # The sequence under way may have passed its qos: run another one after it.
            self._loop.call_guarded(0.01, partial(self._renew, prefetch))
            return
        self._renew(prefetch)

    def _renew(self, prefetch: int) -> None:
        if prefetch != self._prefetch or not self._channel.is_ready or not self.is_wanted():
            return
        if self._is_busy:
            self._loop.call_guarded(0.01, partial(self._renew, prefetch))
            return
        self._cancel(self._consumed, partial(self._consume_again, self._consumed))

    def _consume_again(self, names: list[str]) -> None:
        """What was consumed a moment ago need not be looked for; the rest follows."""
        names = [name for name in names if name in self._active and name not in self._absent]
        self._again = self._again or len(names) < len(self._wanted)
        self._consume(names)

    # --- deliveries, events, and the end ---

    def _hand_out(self, batch: list[FastDelivery]) -> None:
        try:
            self._on_deliveries(batch)
        except BaseException:
            LOGGER.exception("on_deliveries raised", extra={"action": "callback_error"})

    def _tell(
        self,
        state: ConsumerState,
        *,
        queue_name: str | None = None,
        error: Exception | None = None,
        is_broken: bool = False,
        is_queue_there: bool = False,
    ) -> None:
        try:
            self._on_event(
                ConsumerEvent(
                    state=state,
                    epoch=self._channel.epoch,
                    queue_name=queue_name,
                    error=error,
                    is_broken=is_broken,
                    is_queue_there=is_queue_there,
                )
            )
        except BaseException:
            LOGGER.exception("on_event raised", extra={"action": "callback_error"})

    def _fail(self, error: Exception, *, is_broken: bool = False) -> None:
        if self._is_failed or self.is_closed:
            return
        self._is_failed = True
        self._channel.drop()
        try:
            self._channel.cut()
        finally:
            # A loop whose descriptors were closed under it cannot even do that, and whoever consumes must hear of its end.
            self._tell(ConsumerState.FAILED, error=error, is_broken=is_broken)
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
        if not self._channel.is_ready:
            self._finish_close()
        elif self._search.is_under_way:
            self._finish_close()  # looking for queues may take long, and is for nothing now
        elif not self._is_busy:
            self._cancel(self._consumed, self._reconciled)
        else:
            self._again = True

    def _finish_close(self) -> None:
        self._channel.close(self._closed)

    def _cut(self, _none: Any) -> None:
        """The broker took too long to say goodbye."""
        if not self.is_closed:
            self._channel.cut()
            self._closed()

    def _closed(self) -> None:
        if self.is_closed:
            return
        self._channel.drop()
        self._tell(ConsumerState.CLOSED)
        self._over()

    def _over(self) -> None:
        self.is_closed = True
        self._stop_timer()
        self._renewal.stop()
        self._roll_call.stop()
        self._on_closed(self)
        for waiter in (*self._closing, *self._flushing):
            waiter.succeed()
        self._closing.clear()
        self._flushing.clear()


def _uncounted(options: ConsumerOptions, declare: Topology | None) -> frozenset[str]:
    """Streams, as far as they are known: the broker counts no consumers of theirs."""
    declared = declare.queues if declare is not None else ()
    streams = {queue.name for queue in declared if queue.type is QueueType.STREAM}
    with_offset = {name for name, table in options.arguments.items() if OFFSET in table}
    return frozenset(streams | with_offset | set(options.streams))


def _about(queue_name: str) -> dict[str, str]:
    return {"action": "queue_absent", "queue": queue_name}
