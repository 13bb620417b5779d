"""What the publisher sends and when, and when a bulk has all its outcomes: no broker, the test gives the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from pika.exceptions import ChannelClosedByBroker

from amqp_tasks.errors import PublishError, SendUnknown, UnroutableError
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._pending import BatchOutcomes, CallbackOutcome, Pending
from amqp_tasks.transport.rabbitmq._publisher import Publisher
from support.fake_deliveries import FakeClock


class Wire:
    """Loop, connection and channel in one; a message is written as the one byte of its head."""

    is_open = True
    unwritten = 0
    body_max = 100

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.written: list[str] = []
        self.sinks: dict[int, Any] = {}
        self.outcomes: dict[str, PublishError | None] = {}
        self._turn: list[Callable[[], None]] = []
        self._timers: list[Callable[[], None]] = []
        self._repairs: list[Callable[[bool], None]] = []
        me = cast("Any", self)
        self.publisher = Publisher(
            me,
            clock=self.clock,
            tally=Tally(self.clock),
            window=10,
            setup_timeout=10.0,
            need_connection=lambda: None,
            drop_connection=lambda _why: None,
            repair=self._repair,
            doing=str,
        )
        self.publisher.on_open(me)
        self.sets_up()

    # What the publisher calls.

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        self._turn.append(callback)

    def call_guarded(self, _delay: float, callback: Callable[[], None]) -> object:
        self._timers.append(callback)
        return callback

    def remove_timeout(self, timer: Callable[[], None]) -> None:
        self._timers.remove(timer)

    def _ignore(self, _callback: object) -> None: ...

    add_on_connection_blocked_callback = add_on_connection_unblocked_callback = add_on_close_callback = (
        _ignore
    )

    def channel(self, _number: int, on_open_callback: Callable[[Any], None]) -> Wire:
        self._on_channel = on_open_callback
        return self

    def close(self) -> None: ...

    def _rpc(self, _method: object, callback: Callable[[Any], None], _replies: object) -> None:
        self._on_confirm_mode = callback

    def emit(self, data: bytes, _frames: int) -> None:
        self.written += data.decode()

    def _repair(self, pending: Pending, then: Callable[[bool], None]) -> bool:
        self._repairs.append(then)
        return True

    # What the test does.

    def sets_up(self) -> None:
        self._on_channel(self)
        self._on_confirm_mode(None)

    def sends(self, name: str, *, exchange: str = "", timeout: float = 100.0) -> Pending:
        message = OutgoingMessage(exchange=exchange, routing_key="q", body=b"", properties=Properties())
        outcome = CallbackOutcome(lambda error: self.outcomes.update({name: error}))
        pending = Pending(message, name.encode(), self.clock.seconds + timeout, outcome)
        self.publisher.submit(pending)
        return pending

    def turn(self) -> list[str]:
        """What is written in one turn of the loop."""
        self.written.clear()
        turn, self._turn = self._turn, []
        for callback in turn:
            callback()
        return list(self.written)

    def repaired(self, *, worked: bool = True) -> None:
        repairs, self._repairs = self._repairs, []
        for then in repairs:
            then(worked)

    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds
        timers, self._timers = self._timers, []
        for timer in timers:
            timer()

    def closes_the_channel(self, code: int, text: str) -> None:
        self.publisher._on_channel_closed(self, ChannelClosedByBroker(code, text))
        self.turn()
        self.sets_up()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_what_was_returned_is_sent_again_in_its_order_and_before_what_is_new(wire: Wire) -> None:
    returned = [wire.sends(name) for name in "abc"]
    assert wire.turn() == ["a", "b", "c"]
    for pending in returned:
        pending.returned = "312 NO_ROUTE"
    wire.publisher.on_confirm(3, multiple=True, is_nacked=False)
    wire.sends("d")

    wire.repaired()

    assert wire.turn() == ["a", "b", "c", "d"]


def test_who_waits_for_the_end_hears_of_it_when_the_last_message_cannot_be_repaired(wire: Wire) -> None:
    wire.sends("a").returned = "312 NO_ROUTE"
    wire.turn()
    wire.publisher.on_confirm(1, multiple=False, is_nacked=False)
    idle: list[str] = []
    wire.publisher.when_idle(lambda: idle.append("told"))
    wire.turn()

    wire.repaired(worked=False)
    wire.turn()

    assert idle == ["told"]
    assert isinstance(wire.outcomes["a"], UnroutableError)


def test_what_was_nacked_is_sent_again_in_its_order(wire: Wire) -> None:
    for name in "abc":
        wire.sends(name)
    wire.turn()

    for _ in range(2):
        last = wire.publisher._next_tag - 1
        wire.publisher.on_confirm(last, multiple=True, is_nacked=True)
        wire.time_passes(1.0)
        wire.sets_up()  # the channel was renewed
        assert wire.turn() == ["a", "b", "c"]


def test_suspects_do_not_wait_for_a_message_that_is_never_confirmed(wire: Wire) -> None:
    wire.sends("x", exchange="known")
    wire.turn()
    wire.publisher.on_confirm(1, multiple=False, is_nacked=False)
    wire.sends("n", timeout=1.0)
    for name in "ab":
        wire.sends(name, exchange="known")
    wire.turn()
    wire.closes_the_channel(404, "NOT_FOUND - no exchange 'known' in vhost '/'")
    assert wire.turn() == ["n"]  # the others go one at a time

    wire.time_passes(2.0)

    assert isinstance(wire.outcomes["n"], SendUnknown)
    assert wire.turn() == ["a"]


def test_the_end_of_a_wait_that_comes_late_does_not_end_the_next_one() -> None:
    # As when the I/O thread is stopped within `set`, while the caller, woken before, goes on to its next wait.
    outcomes = BatchOutcomes()
    outcomes.outcomes = [None] * 3
    outcomes.done(0, None)
    late = threading.Event()

    class Wake(threading.Event):
        def clear(self) -> None:
            super().clear()
            if not late.is_set():
                late.set()
                self.set()

    outcomes._wake = Wake()

    assert not outcomes.wait_for(3, 0.05)
    assert late.is_set()
