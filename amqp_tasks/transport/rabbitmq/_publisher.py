"""Publishing with confirms: order, window, deadlines, resending.

Life of a message: `submit` → waiting → written (unconfirmed) → confirmed, or an error; see
`docs/explanation/connections.md`, "A publish". Everything here runs on the I/O thread, except `Pending`'s making.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Protocol

from pika import spec

from amqp_tasks.clock import Clock
from amqp_tasks.errors import (
    BrokerConnectionError,
    BrokerUnreachable,
    MessageTooLarge,
    PublishError,
    SendUnknown,
)
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._errors import reply_of
from amqp_tasks.transport.rabbitmq._fastwire import (
    ChannelSink,
    FastConnection,
    FastDelivery,
    Returned,
    body_frames,
)
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._patience import Patience
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._suspects import culprit_error, find_suspects, is_certain, is_suspicious
from amqp_tasks.transport.rabbitmq._topology import NOT_FOUND
from amqp_tasks.transport.rabbitmq._verdicts import deadline_error, find_returned, nacked, unroutable
from amqp_tasks.transport.rabbitmq._window import SendWindow

__all__ = ("PUBLISH_CHANNEL", "Publisher", "PublisherCounters")

LOGGER = logging.getLogger(__name__)
PUBLISH_CHANNEL = 1
# Above this the socket's backlog grows instead of the window's: wait for confirms first.
MAX_UNWRITTEN = 4 * 1024 * 1024
# A quorum queue whose leader has just died refuses what is new to it: in all nearly five seconds are given to an election.
NACK_PAUSES = (0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8)


class PublisherCounters:
    """Written on the I/O thread only."""

    __slots__ = ("confirmed", "nacked", "published", "resent", "returned")

    def __init__(self) -> None:
        self.published = self.confirmed = self.returned = self.nacked = self.resent = 0


class Repairer(Protocol):
    """Declares again what a returned message was for."""

    def __call__(self, pending: Pending, then: Callable[[bool], None]) -> bool:
        """Start it and return True, `then(worked)` follows; or False: not declared by us."""
        ...


class _ConfirmSink(ChannelSink):
    def __init__(self, publisher: Publisher) -> None:
        super().__init__()
        self._publisher = publisher

    def on_returned(self, returned: Returned) -> None:
        self._publisher.on_returned(returned)

    def on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        self._publisher.on_confirm(tag, multiple, nacked)

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        """Nothing is consumed on this channel."""


class Publisher:
    """See the module's docstring. Owner thread only."""

    def __init__(
        self,
        loop: DoorLoop,
        *,
        clock: Clock,
        tally: Tally,
        window: int,
        setup_timeout: float,
        need_connection: Callable[[], None],
        drop_connection: Callable[[str], None],
        repair: Repairer,
        doing: Callable[[], str],
    ) -> None:
        self._loop, self._clock, self._window = loop, clock, SendWindow(window)
        self._need_connection, self._repair = need_connection, repair
        self._patience = Patience(loop, setup_timeout, self._lose_patience)
        self._drop_connection = drop_connection
        self._doing = doing  # what is asked of the broker for those that are held
        self._tally = tally
        self.counters = PublisherCounters()
        self.blocked_reason: str | None = None
        self.last_error: BrokerConnectionError | None = None
        self._waiting: deque[Pending] = deque()
        self._unconfirmed: dict[int, Pending] = {}  # by delivery tag, in order
        self._repairing: set[Pending] = set()
        self._returning: list[Pending] = []  # of those, what is sent again with the next turn
        self._serial: set[Pending] = set()  # suspects: each is sent alone
        self._confirmed_exchanges: set[str] = set()
        self._connection: FastConnection | None = None
        self._channel: Any = None
        self._is_ready = False
        self._next_tag = self._lowest_tag = 1
        self._is_pumping = False
        self._expiry: Any = None
        self._expires_at = float("inf")
        self._idle_waiters: list[Callable[[], None]] = []
        self._ended = ""  # why nothing is sent any more

    @property
    def is_flowing(self) -> bool:
        """Whether a message would go out at once."""
        return self._is_ready and self.blocked_reason is None

    @property
    def is_unused(self) -> bool:
        """Whether a message would go out at once, and none waits for anything, a late confirm included."""
        return self.is_flowing and not (self._waiting or self._unconfirmed or self._repairing)

    @property
    def confirmed_exchanges(self) -> Collection[str]:
        """Those that have taken a message of ours."""
        return self._confirmed_exchanges

    # --- work comes in ---

    def submit(self, pending: Pending) -> None:
        """Take one message."""
        if self._ended:
            self._finish(pending, self._deadline_error(pending, self._ended))
            return
        self._waiting.append(pending)
        if pending.deadline < self._expires_at:
            self._arm_expiry(pending.deadline)
        self._schedule_pump()

    def hold(self, pending: Pending) -> bool:
        """Keep one until `release`, or its deadline; False: nothing is sent any more, and it has ended."""
        if self._ended:
            self._finish(pending, self._deadline_error(pending, self._ended))
            return False
        self._repairing.add(pending)
        if pending.deadline < self._expires_at:
            self._arm_expiry(pending.deadline)
        self._need_connection()
        return True

    def release(self, held: Sequence[Pending], refusal: Callable[[], PublishError] | None) -> None:
        """Send what was held, in order, or end it with an error of its own each."""
        self._repairing.difference_update(held)
        for pending in held:
            if refusal is not None:
                self._finish(pending, refusal())
            elif not pending.is_done:
                self._waiting.append(pending)
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.at_turn_end(self._pump)

    @property
    def outstanding(self) -> int:
        """Messages without an outcome."""
        open_ones = sum(1 for pending in self._unconfirmed.values() if not pending.is_done)
        return len(self._waiting) + open_ones + len(self._repairing)

    # --- the connection ---

    def on_open(self, connection: FastConnection) -> None:
        """A new publishing connection: open the channel, ask for confirms."""
        self._connection, self.last_error = connection, None
        self.blocked_reason = None
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel(connection)

    def _open_channel(self, connection: FastConnection) -> None:
        self._is_ready = False
        channel = connection.channel(PUBLISH_CHANNEL, on_open_callback=self._on_channel_open)
        channel.add_on_close_callback(self._on_channel_closed)
        self._channel = channel
        self._patience.expect("channel.open")

    def _reopen_channel(self, connection: FastConnection) -> None:
        if connection is self._connection and self._channel is None and connection.is_open:
            self._open_channel(connection)

    def _on_channel_open(self, channel: Any) -> None:
        # pika's own confirm_delivery would swallow the confirms that we read by hand; only its method is needed.
        channel._rpc(
            spec.Confirm.Select(False), partial(self._on_confirm_mode, channel), [spec.Confirm.SelectOk]
        )
        self._patience.expect("confirm.select")

    def _lose_patience(self, why: str) -> None:
        # Deadlines that pass before the end of the connection is told have this reason, too.
        self.last_error = BrokerUnreachable(why)
        self._drop_connection(why)

    def _on_confirm_mode(self, channel: Any, _frame: Any) -> None:
        if channel is not self._channel or self._connection is None:
            return
        self._connection.sinks[PUBLISH_CHANNEL] = _ConfirmSink(self)
        self._next_tag = self._lowest_tag = 1
        self._is_ready = True
        self._patience.rest()
        self._schedule_pump()

    def rest(self) -> None:
        """The connection is closed, as nothing uses it; the next message has another one opened."""
        assert self._connection is not None
        self._connection.sinks.pop(PUBLISH_CHANNEL, None)
        self._connection = self._channel = None
        self._is_ready = False

    def note_failure(self, error: BrokerConnectionError) -> None:
        """An attempt to connect failed; another will be made."""
        self.last_error = error

    def on_lost(self, error: BrokerConnectionError) -> None:
        """The connection is gone: what is unconfirmed goes first on the next one."""
        self.last_error = error
        code, _text = reply_of(error.__cause__)
        if is_suspicious(code):
            self._blame(code, _text)
        else:
            for pending in self._unconfirmed.values():
                pending.maybe_stored = True
        self._take_back()
        self._window.lost()
        self._connection = self._channel = None
        self._is_ready = False
        self._patience.rest()
        self.blocked_reason = None

    def on_refused(self, error: BrokerConnectionError) -> None:
        """No connection, finally: everything ends now."""
        self.last_error = error
        self._take_back()
        waiting, self._waiting = [*self._repairing, *self._waiting], deque()
        self._repairing.clear()
        for pending in waiting:
            self._finish(pending, self._deadline_error(pending, "there is no connection"))
        self._tell_idle()

    def _take_back(self) -> None:
        again = [pending for pending in self._unconfirmed.values() if not pending.is_done]
        self._unconfirmed.clear()
        self._window.channel_gone()
        for pending in again:
            pending.returned = ""
        self._waiting.extendleft(reversed(again))

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        if connection is self._connection:  # one that says goodbye has no say in the next one's affairs
            self.blocked_reason = str(frame.method.reason)

    def _on_unblocked(self, connection: Any, _frame: Any) -> None:
        if connection is self._connection:
            self.blocked_reason = None
            self._schedule_pump()

    # --- writing ---

    def _pump(self) -> None:
        """Write what the window allows, all in one piece."""
        self._is_pumping = False
        self._let_return()
        if not self._waiting:
            self._tell_idle()
            return
        if not self._is_ready or self._connection is None:
            self._need_connection()
            return
        if self.blocked_reason is not None or self._connection.unwritten > MAX_UNWRITTEN:
            return
        pieces: list[bytes] = []
        frames = self._gather(pieces, self._connection.body_max)
        if pieces:
            self._connection.emit(b"".join(pieces), frames)

    def _let_return(self) -> None:
        """What is sent again goes first, in the order in which it was sent."""
        returning, self._returning = self._returning, []
        self._repairing.difference_update(returning)
        returning.sort(key=lambda pending: pending.number, reverse=True)
        self._waiting.extendleft(pending for pending in returning if not pending.is_done)

    def _gather(self, pieces: list[bytes], body_max: int) -> int:
        waiting, unconfirmed = self._waiting, self._unconfirmed
        frames = size = 0
        while waiting and self._window.has_room(len(unconfirmed)) and size < MAX_UNWRITTEN:
            pending = waiting[0]
            if pending.is_done:
                waiting.popleft()
                continue
            if self._serial and not self._may_send_serially(pending):
                break
            waiting.popleft()
            if len(pending.head) > body_max:
                self._finish(
                    pending,
                    MessageTooLarge(f"headers of {len(pending.head)} bytes exceed the frame size {body_max}"),
                )
                continue
            self._note_written(pending)
            pieces.append(pending.head)
            frames += 2 + body_frames(PUBLISH_CHANNEL, pending.message.body, body_max, pieces)
            size += len(pending.message.body)
        return frames

    def _may_send_serially(self, pending: Pending) -> bool:
        """A suspect goes alone, and nothing goes while one is out; what is told to be unknown is not waited for."""
        if all(other.is_done for other in self._unconfirmed.values()):
            return True
        if pending in self._serial:
            return False
        return self._serial.isdisjoint(self._unconfirmed.values())

    def _note_written(self, pending: Pending) -> None:
        counters = self.counters
        if pending.writes:
            counters.resent += 1
        else:
            counters.published += 1
            pending.number = counters.published
        pending.writes += 1
        self._unconfirmed[self._next_tag] = pending
        self._next_tag += 1

    # --- answers ---

    def on_confirm(self, tag: int, multiple: bool, is_nacked: bool) -> None:
        """`basic.ack` or `basic.nack` from the broker."""
        if multiple:
            # 0 means all. What was never written is not counted up to: the number is the broker's.
            last = min(tag or self._next_tag, self._next_tag - 1)
            for each in range(self._lowest_tag, last + 1):
                pending = self._unconfirmed.pop(each, None)
                if pending is not None:
                    self._settled(pending, is_nacked)
            self._lowest_tag = max(self._lowest_tag, last + 1)
        else:
            pending = self._unconfirmed.pop(tag, None)
            if tag == self._lowest_tag:
                self._lowest_tag += 1
            if pending is not None:
                self._settled(pending, is_nacked)
        self._schedule_pump()

    def _settled(self, pending: Pending, is_nacked: bool) -> None:
        if self._serial:
            self._serial.discard(pending)
        self._window.confirmed()
        if pending.is_done:
            self._window.overdue_confirmed()
            return
        if is_nacked:
            self._on_nacked(pending)
        elif pending.returned:
            self._on_unroutable(pending)
        else:
            self.counters.confirmed += 1
            if pending.message.is_task:
                self._tally.add("accepted")
            if pending.message.exchange not in self._confirmed_exchanges:
                self._confirmed_exchanges.add(pending.message.exchange)
            pending.finish(None)

    def _on_nacked(self, pending: Pending) -> None:
        """Not stored, and nobody says why: try again for as long as an election may take."""
        if pending.nacks < len(NACK_PAUSES):
            self._repairing.add(pending)
            self._loop.call_guarded(NACK_PAUSES[pending.nacks], partial(self._after_nack, pending))
            pending.nacks += 1
            pending.is_nacked = True
        else:
            self.counters.nacked += 1
            self._finish(pending, nacked(pending))

    def _after_nack(self, pending: Pending) -> None:
        pending.is_nacked = False
        if not pending.is_done:
            self._renew_idle_channel()
        self._on_repaired(pending, True)

    def _renew_idle_channel(self) -> None:
        """RabbitMQ 3.10's channel goes on refusing for a queue whose leader had died when it first published there."""
        if self._is_ready and not self._unconfirmed:
            self._is_ready = False
            self._channel.close()
            self._patience.expect("channel.close")

    def _finish(self, pending: Pending, error: PublishError) -> None:
        self._serial.discard(pending)
        if pending.message.is_task and not pending.is_done and isinstance(error, SendUnknown):
            self._tally.add("unknown")
        pending.finish(error)

    def on_returned(self, returned: Returned) -> None:
        """`basic.return`: find its message; the confirm that follows decides."""
        self.counters.returned += 1
        pending = find_returned(returned, self._unconfirmed.values())
        if pending is not None:
            pending.returned = f"{returned.reply_code} {returned.reply_text}"
        else:
            LOGGER.error(
                "the broker returned a message to exchange %r, routing key %r that was not sent here",
                returned.exchange,
                returned.routing_key,
                extra={"action": "unknown_return"},
            )

    def _on_unroutable(self, pending: Pending) -> None:
        if not pending.is_repaired:
            pending.is_repaired = True
            # Noted first: the answer may come before `_repair` returns.
            self._repairing.add(pending)
            if self._repair(pending, partial(self._on_repaired, pending)):
                return
            self._repairing.discard(pending)
        self._finish(pending, unroutable(pending))

    def _on_repaired(self, pending: Pending, worked: bool) -> None:
        if worked and not pending.is_done:
            pending.returned = ""
            self._returning.append(pending)
        else:
            self._repairing.discard(pending)
            self._finish(pending, unroutable(pending))
        self._schedule_pump()

    # --- the broker closes the channel ---

    def _on_channel_closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel:
            return
        self._is_ready = False
        connection = self._connection
        if connection is not None:
            connection.sinks.pop(PUBLISH_CHANNEL, None)
        if connection is None or not connection.is_open:
            return  # on_lost follows
        code, text = reply_of(reason)
        self._blame(code, text)
        self._take_back()
        # Not from here: pika still has to clean up this channel's number, and would take the new one along.
        self._channel = None
        self._loop.at_turn_end(partial(self._reopen_channel, connection))

    def _blame(self, code: int, text: str) -> None:
        """End the culprit if it is known, else make the suspects go one at a time."""
        # Those that are done (their deadline passed) may be the culprit as well.
        unconfirmed = list(self._unconfirmed.values())
        named = find_suspects(text, unconfirmed)
        suspects = named or unconfirmed  # a name the broker wrote otherwise than we did fits none
        for pending in set(unconfirmed).difference(suspects):
            pending.maybe_stored = True
        is_sure = bool(named) and is_certain(text, known_exchanges=self._confirmed_exchanges)
        if is_sure or len(suspects) == 1:
            for pending in suspects:
                if (
                    code == NOT_FOUND
                    and pending.entry is not None
                    and not (pending.is_done or pending.is_repaired)
                ):
                    self._declare_again(pending, code, text)
                else:
                    self._finish(pending, culprit_error(pending, code, text))
            return
        for pending in suspects:
            pending.maybe_stored = (
                pending.maybe_stored or pending.message.exchange in self._confirmed_exchanges
            )
        self._serial.update(pending for pending in suspects if not pending.is_done)

    def _declare_again(self, pending: Pending, code: int, text: str) -> None:
        """An exchange of the timer wheel is gone, which is ours to declare."""
        pending.returned = f"{code} {text}"
        self._unconfirmed = {tag: each for tag, each in self._unconfirmed.items() if each is not pending}
        self._serial.discard(pending)
        self._on_unroutable(pending)

    # --- deadlines ---

    def _arm_expiry(self, at: float) -> None:
        if self._expiry is not None:
            self._loop.remove_timeout(self._expiry)
        self._expires_at = at
        self._expiry = self._loop.call_guarded(at - self._clock.monotonic(), self._expire)

    def _expire(self) -> None:
        """End what is due. One scan for all: a timer per message would cost more than the message."""
        self._expiry = None
        self._expires_at = float("inf")
        now = self._clock.monotonic()
        written = [(True, pending) for pending in self._unconfirmed.values() if not pending.is_done]
        others = [(False, pending) for pending in (*self._repairing, *self._waiting) if not pending.is_done]
        left = written + others
        earliest = float("inf")
        for is_written, pending in left:
            if pending.deadline <= now:
                if is_written:
                    self._window.became_overdue()
                self._finish(pending, self._deadline_error(pending, "the deadline passed"))
            elif pending.deadline < earliest:
                earliest = pending.deadline
        if earliest < float("inf"):
            # Scans keep a distance that grows with their cost.
            self._arm_expiry(max(earliest, now + 0.002 + len(left) * 2e-6))
        self._waiting = deque(pending for pending in self._waiting if not pending.is_done)
        self._repairing = {pending for pending in self._repairing if not pending.is_done}
        self._tell_idle()
        self._schedule_pump()  # what is overdue takes up no room any more

    def _deadline_error(self, pending: Pending, why: str) -> PublishError:
        if pending.is_nacked:
            self.counters.nacked += 1
            return nacked(pending)
        obstacle = self._obstacle(pending)
        error = deadline_error(
            pending,
            why,
            is_returned=bool(pending.returned),
            blocked_reason=self.blocked_reason,
            last_error=obstacle,
        )
        if obstacle is not None:
            error.__cause__ = obstacle
        return error

    def _obstacle(self, pending: Pending) -> BrokerConnectionError | None:
        """What kept a message from being written."""
        if self.last_error is not None:
            return self.last_error
        if pending in self._repairing and (doing := self._doing()):
            return BrokerUnreachable(f"the broker did not answer in time while {doing}")
        if self._patience.awaited:
            return BrokerUnreachable(f"the broker has not answered {self._patience.awaited}")
        return None

    # --- the end ---

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` when nothing is outstanding any more."""
        if self._ended:
            then()
            return
        self._idle_waiters.append(then)
        self._schedule_pump()

    def _tell_idle(self) -> None:
        if self._idle_waiters and not self.outstanding:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter()

    def give_up(self, why: str) -> None:
        """End everything that is outstanding, as at its deadline."""
        everything = [*self._unconfirmed.values(), *self._repairing, *self._waiting]
        self._waiting.clear()
        self._repairing.clear()
        for pending in everything:
            if not pending.is_done:
                self._finish(pending, self._deadline_error(pending, why))

    def end(self, why: str) -> None:
        """`give_up`, now and for whatever still comes: the loop has ended."""
        self._ended = why
        self.give_up(why)
        self._tell_idle()
