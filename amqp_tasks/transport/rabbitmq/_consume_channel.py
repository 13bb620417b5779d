"""The channel that a consumer has now, on a connection of its own; opened anew whenever it is gone.

Each channel has an epoch, and what is settled for one that is gone is stale. See `docs/explanation/connections.md`,
"A consumer", for what is final and what is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from amqp_tasks.clock import Clock
from amqp_tasks.errors import BrokerConnectionError
from amqp_tasks.transport._contract import ConsumerOptions
from amqp_tasks.transport._streams import StreamPlaces
from amqp_tasks.transport.rabbitmq._connection import STABLE_AFTER, Backoff, Link, LinkState
from amqp_tasks.transport.rabbitmq._errors import operation_error, reply_of
from amqp_tasks.transport.rabbitmq._fastwire import ChannelSink, FastConnection, FastDelivery
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._options import TransportOptions
from amqp_tasks.transport.rabbitmq._patience import Patience
from amqp_tasks.transport.rabbitmq._settlements import Settlements
from amqp_tasks.transport.rabbitmq._subscriptions import Subscriptions
from amqp_tasks.transport.rabbitmq._suspects import is_suspicious

__all__ = ("ChannelOwner", "ConsumeChannel", "is_final_refusal")

LOGGER = logging.getLogger(__name__)

CONSUME_CHANNEL = 1
TIMEOUT = "x-consumer-timeout"
TIMEOUT_FROM = (4, 3)
"""The version of RabbitMQ that lets consumers ask for it; older ones would ignore it."""
NO_REPLICA = "replica on the local node"
"""Of a stream, in the broker's words, which are the same for one that was declared a moment ago and is about to run here."""
ASK_FOR_ACCESS_AFTER = 5.0
"""Seconds between attempts to enter a virtual host, or to log in, that is closed to a user who was there before."""
ACCESS_REFUSED, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 405, 406


def is_final_refusal(code: int, *, has_consumed: bool) -> bool:
    """Whether a refusal to consume stands until somebody changes the configuration, ours or the broker's.

    What was consumed before is tried again: a permission comes back, and a queue that was exclusively ours is held by our
    own lost connection until the broker notices that it is gone.
    """
    return not has_consumed and code in {ACCESS_REFUSED, RESOURCE_LOCKED, PRECONDITION_FAILED}


class ChannelOwner(Protocol):
    """Who is told. On the I/O thread."""

    def is_wanted(self) -> bool:
        """Whether queues are to be consumed now."""
        ...

    def on_ready(self) -> None:
        """There is a channel, with nothing consumed on it yet."""

    def on_consuming(self, queue_name: str) -> None:
        """One queue is consumed."""

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        """All messages of one read."""

    def on_cancelled(self, queue_name: str) -> None:
        """The broker has cancelled one queue's consumer."""

    def on_refused(self, queue_name: str) -> None:
        """The broker is about to close the channel over this queue, which may not be consumed now."""

    def on_lost(self, error: Exception) -> bool:
        """The channel is gone, the epoch has passed; False: no other is wanted."""
        ...

    def on_final(self, error: Exception) -> None:
        """There will be no other."""


class _DeliverySink(ChannelSink):
    def __init__(self, owner: ChannelOwner, *, epoch: int) -> None:
        super().__init__(epoch=epoch)
        self._owner = owner

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        self._owner.on_deliveries(batch)


class ConsumeChannel:
    """Owner thread only, except `settlements.add`.

    Attributes:
        epoch: grows with each channel, and when one is lost.
        subscriptions: of the present channel, once it is open.
        has_consumed: whether everything wanted was consumed once, on this channel or on one before; set by the owner.
        settlements: of the present channel; `add` from any thread.
        link: its connection.

    Args:
        loop: of the I/O thread.
        transport_options: how to connect.
        options: how to consume.
        places: where streams were read to.
        clock: for what takes time.
        owner: is told.
        keep: keeps the link for the next one, or says that it does not; None: the connection ends with this one.
    """

    def __init__(
        self,
        loop: DoorLoop,
        transport_options: TransportOptions,
        options: ConsumerOptions,
        places: StreamPlaces,
        *,
        clock: Clock,
        owner: ChannelOwner,
        keep: Callable[[Link], bool] | None,
    ) -> None:
        self._keep = keep
        self._loop, self._options, self._places, self._clock, self._owner = (
            loop,
            options,
            places,
            clock,
            owner,
        )
        self._setup_timeout = transport_options.setup_timeout
        self._patience = Patience(loop, self._setup_timeout, self._give_up)
        self.epoch = 0
        self.subscriptions: Subscriptions | None = None
        self.settlements = Settlements(
            loop, channel=CONSUME_CHANNEL, delay=options.settle_delay, prefetch=options.prefetch
        )
        self.has_consumed = False
        self._is_timeout_refused = False
        self._without_replica_since: float | None = None
        self._channel: Any = None
        self._opened_at = 0.0
        self._backoff = Backoff()
        self._timer: Any = None
        self.link = Link(
            loop,
            transport_options,
            name="amqp-tasks consumer",
            clock=clock,
            on_open=self._open,
            on_lost=self._on_connection_lost,
            on_refused=self._on_connection_refused,
            # Who is quicker deletes the queue, and a broker that has not done so closes the other's connection (541).
            log_level=logging.DEBUG if options.exclusive else logging.WARNING,
        )
        self._connects_before = 0  # of the link, for another

    @property
    def connection(self) -> FastConnection | None:
        """The present one."""
        return self.link.connection

    @property
    def is_ready(self) -> bool:
        """Whether there is an open channel. Any thread."""
        channel = self._channel
        return self.subscriptions is not None and channel is not None and bool(channel.is_open)

    @property
    def connects(self) -> int:
        """How often it has connected."""
        return self.link.connects - self._connects_before

    def adopt(self, link: Link) -> None:
        """Go on with an open connection that another has left."""
        assert link.connection is not None
        self.link, self._connects_before = link, link.connects
        link.hand_to(
            on_open=self._open, on_lost=self._on_connection_lost, on_refused=self._on_connection_refused
        )
        self._open(link.connection)

    def _open(self, connection: FastConnection) -> None:
        channel = connection.channel(CONSUME_CHANNEL, on_open_callback=self._on_open)
        channel.add_on_close_callback(self._on_closed)
        channel.add_on_cancel_callback(self._on_cancelled)
        self._channel = channel
        self._patience.expect("channel.open")

    def _give_up(self, why: str) -> None:
        self.link.drop(why)

    def _on_open(self, channel: Any) -> None:
        connection = self.connection
        if channel is not self._channel or connection is None:
            return
        self._patience.rest()
        self.epoch += 1
        self._opened_at = self._clock.monotonic()
        self.settlements.begin(self.epoch, connection.emit)
        sink = connection.sinks[CONSUME_CHANNEL] = _DeliverySink(self._owner, epoch=self.epoch)
        self.subscriptions = Subscriptions(
            channel,
            sink,
            self._options,
            self._arguments,
            self._patience,
            is_wanted=self._owner.is_wanted,
            on_consuming=self._owner.on_consuming,
        )
        self._owner.on_ready()

    def _arguments(self, name: str) -> dict[str, Any] | None:
        table = self._places.arguments(name) or {}
        server = self.link.server
        if self._is_timeout_refused or server is None or server.version < TIMEOUT_FROM:
            table.pop(TIMEOUT, None)
        return table or None

    def _on_cancelled(self, frame: Any) -> None:
        if self.subscriptions is not None:
            name = self.subscriptions.forget(str(frame.method.consumer_tag))
            if name is not None:
                self._owner.on_cancelled(name)

    def _on_closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel:
            return
        connection, subscriptions = self.connection, self.subscriptions
        if connection is None or not connection.is_open:
            return  # the connection's own end follows
        code, text = reply_of(reason)
        refused = subscriptions.asked_for if subscriptions is not None else None
        self.drop()
        error = operation_error("consuming", reason)
        # Nobody promises which types of queues take it in which version; it is a wish, not a need.
        is_timeout_refused = TIMEOUT in text and not self._is_timeout_refused
        self._is_timeout_refused = self._is_timeout_refused or is_timeout_refused
        is_curable = is_timeout_refused or "acknowledgement" in text or self._may_be_starting(text)
        if not is_curable and is_final_refusal(code, has_consumed=self.has_consumed):
            self._owner.on_final(error)
            return
        if refused is not None:
            self._owner.on_refused(refused)
        if self._owner.on_lost(error):
            # Who asks for a queue of its own has rivals, and learns of a lost one by the event.
            is_usual = refused is not None and self._options.exclusive
            self._reopen_later(connection, error, logging.DEBUG if is_usual else logging.WARNING)

    def _may_be_starting(self, text: str) -> bool:
        """Whether a stream was refused that may be about to run here; a broker gets as long for that as for any step."""
        if NO_REPLICA not in text:
            return False
        now = self._clock.monotonic()
        if self._without_replica_since is None:
            self._without_replica_since = now
        return now - self._without_replica_since < self._setup_timeout

    def _reopen_later(self, connection: FastConnection, error: Exception, level: int) -> None:
        if self._clock.monotonic() - self._opened_at >= STABLE_AFTER:
            self._backoff.reset()
        LOGGER.log(
            level, "%s; what runs goes on, and what it was delivered for is known when it comes again", error,
            extra={"action": "channel_closed"},
        )  # fmt: skip
        self._later(self._backoff.next(), partial(self._reopen, connection))

    def _reopen(self, connection: FastConnection) -> None:
        if connection is self.connection and self._channel is None and connection.is_open:
            self._open(connection)

    def renew(self) -> None:
        """Take another channel for this one, on which nothing is consumed and nothing open."""
        connection, channel = self.connection, self._channel
        assert connection is not None
        channel.add_on_close_callback(partial(self._renew_on, connection))
        self.drop()
        channel.close()
        self._patience.expect("channel.close")

    def _renew_on(self, connection: FastConnection, _channel: Any, _reason: Any) -> None:
        # Not from here: pika still has to clean up the number, and would take the new channel along.
        self._loop.at_turn_end(partial(self._reopen, connection))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_guarded(seconds, work)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def _on_connection_lost(self, error: BrokerConnectionError) -> None:
        self.drop()
        code, _text = reply_of(error.__cause__)
        if is_suspicious(code) and not self.has_consumed:
            # Closed over what we asked for, e.g. an exclusive consumer of a quorum queue (540): it would be again.
            self._owner.on_final(operation_error("consuming", error.__cause__ or error))
        else:
            self._owner.on_lost(error)

    def _on_connection_refused(self, error: BrokerConnectionError) -> None:
        if error.is_final and self.has_consumed:
            # Whoever took the access away may give it back; meanwhile the link tells the log.
            self._later(ASK_FOR_ACCESS_AFTER, self.link.need)
        else:
            self._owner.on_final(error)

    def drop(self) -> None:
        """The channel is gone, or not wanted any more."""
        if self.connection is not None:
            self.connection.sinks.pop(CONSUME_CHANNEL, None)
        self._channel = self.subscriptions = None
        self._patience.rest()
        self.settlements.end()
        self.epoch += 1  # whatever is settled from now on is stale

    def cut(self) -> None:
        """Drop the connection and open no other."""
        self._stop_timer()
        self.link.cut()

    def close(self, then: Callable[[], None]) -> None:
        """Send what is settled, say goodbye, and open no other; the caller bounds the time and then calls `cut`."""
        self._stop_timer()
        self.settlements.flush()
        connection = self.connection
        if self._keep is not None and connection is not None and connection.is_open and self.is_ready:
            self._leave(connection, self._keep, then)
        else:
            self._close_connection(then)

    def _leave(
        self, connection: FastConnection, keep: Callable[[Link], bool], then: Callable[[], None]
    ) -> None:
        """Close the channel alone. Without an answer the connection is dropped, as for any method."""

        def left() -> None:
            self._patience.rest()
            is_sound = connection is self.connection and connection.is_open and not connection.has_channels
            if is_sound and keep(self.link):
                then()
            else:
                self._close_connection(then)

        def on_closed(_channel: Any, _reason: Any) -> None:
            # Not from here: pika still has to clean up the channel's number.
            self._loop.at_turn_end(left)

        channel = self._channel
        channel.add_on_close_callback(on_closed)
        self.drop()
        channel.close()
        self._patience.expect("channel.close")

    def _close_connection(self, then: Callable[[], None]) -> None:
        connection = self.connection
        if self.link.state is LinkState.CLOSED:
            return
        if connection is not None and connection.is_open:
            connection.add_on_close_callback(lambda _connection, _reason: then())
            self.link.close()
            self._loop.call_guarded(self._setup_timeout, self.cut)
        else:
            self.link.cut()
            then()
