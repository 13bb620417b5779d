"""Who waits for the timer wheel, and what is declared for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from amqp_tasks.errors import BrokerUnreachable, NotSent, PublishError
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._delay import WheelEntry, wheel_entry
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._pending import CallbackOutcome, Pending
from amqp_tasks.transport.rabbitmq._publisher import Publisher
from amqp_tasks.transport.rabbitmq._wheel import Wheel
from support.fake_deliveries import FakeClock

LOST = BrokerUnreachable("no connection")
LOST_ERROR = NotSent("there is no connection")


class Fixture:
    """A wheel whose publisher keeps what it holds, and whose declarations end when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.declared: list[float] = []  # deadlines, in seconds from the start
        self._start = self.clock.seconds
        self._then: Callable[[Exception | None], None] = lambda _error: None
        self._turn: list[Callable[[], None]] = []
        self.released: list[Pending] = []
        self.timers: list[Callable[[], None]] = []
        me = cast("Any", self)
        self.wheel = Wheel(
            me, me, declare=self._declare, related=lambda _exchange, _key: None, clock=self.clock
        )

    def _declare(self, _script: object, deadline: float, then: Callable[[Exception | None], None]) -> None:
        self.declared.append(deadline - self._start)
        self._then = then

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        self._turn.append(callback)

    def call_guarded(self, _delay: float, callback: Callable[[], None]) -> object:
        self.timers.append(callback)
        return callback

    def remove_timeout(self, timer: Callable[[], None]) -> None:
        self.timers.remove(timer)

    def hold(self, _pending: Pending) -> bool:
        return True

    def release(self, held: Sequence[Pending], refusal: Callable[[], PublishError] | None) -> None:
        self.released += held
        for pending in held:
            pending.finish(None if refusal is None else refusal())

    def submits(self, entry: WheelEntry, *, timeout: float) -> Pending:
        message = OutgoingMessage(exchange="", routing_key="q", body=b"", properties=Properties())
        deadline = self.clock.seconds + timeout
        pending = Pending(message, b"", deadline, CallbackOutcome(lambda _error: None), 0, entry)
        self.wheel.submit(pending)
        return pending

    def ends(self, error: Exception | None) -> None:
        self._then(error)
        turn, self._turn = self._turn, []
        for callback in turn:
            callback()


@pytest.fixture
def fix() -> Fixture:
    return Fixture()


def test_what_nobody_waits_for_any_more_is_not_declared(fix: Fixture) -> None:
    fix.submits(wheel_entry(1, "", "q"), timeout=10)
    given_up = fix.submits(wheel_entry(2, "", "q"), timeout=5)
    given_up.finish(LOST_ERROR)
    fix.submits(wheel_entry(3, "", "q"), timeout=20)

    fix.ends(None)

    assert fix.declared == [10, 20]


def test_one_destination_that_is_always_in_use_does_not_keep_the_others_waiting(fix: Fixture) -> None:
    busy, other = wheel_entry(1, "", "q"), wheel_entry(2, "", "q")
    fix.submits(busy, timeout=10)
    fix.submits(other, timeout=20)
    fix.submits(busy, timeout=30)

    fix.clock.seconds += 10
    fix.ends(LOST)

    assert fix.declared == [10, 20]


def test_a_refused_connection_is_asked_for_once(fix: Fixture) -> None:
    pendings = [fix.submits(wheel_entry(seconds, "", "q"), timeout=10) for seconds in (1, 2, 3)]
    for pending in pendings:
        pending.finish(LOST_ERROR)  # as the publisher does then

    fix.ends(LOST)

    assert fix.declared == [10]


def test_those_whose_way_is_declared_wait_for_the_others_whose_questions_they_would_hold_up(
    fix: Fixture,
) -> None:
    first, second = (fix.submits(wheel_entry(seconds, "", "q"), timeout=10) for seconds in (1, 2))

    fix.ends(None)
    like_first = fix.submits(wheel_entry(1, "", "q"), timeout=10)
    assert fix.released == []
    fix.ends(None)

    assert fix.released == [first, like_first, second]
    assert fix.timers == []


@pytest.mark.parametrize("is_lost", [False, True])
def test_they_do_not_wait_long_for_others(fix: Fixture, is_lost: bool) -> None:
    first, _second, _third = (fix.submits(wheel_entry(seconds, "", "q"), timeout=10) for seconds in (1, 2, 3))
    fix.ends(None)

    if is_lost:
        fix.ends(LOST)
    else:
        fix.timers[0]()

    assert first in fix.released
    assert fix.timers == []


def test_a_way_that_is_repaired_again_forgets_nobody_who_waits_for_its_first_repair(fix: Fixture) -> None:
    way, repaired = wheel_entry(1, "", "q"), list[str]()
    fix.wheel.repair(way, lambda _worked: repaired.append("first"))
    others = [fix.submits(wheel_entry(seconds, "", "q"), timeout=10) for seconds in (2, 3)]
    fix.ends(None)
    joins = fix.submits(way, timeout=10)

    fix.wheel.repair(way, lambda _worked: repaired.append("second"))
    for _ in range(4):
        fix.ends(None)

    assert repaired == ["first", "second"]
    assert set(fix.released) == {joins, *others}


def test_what_was_declared_while_something_was_found_missing_is_declared_once_more(fix: Fixture) -> None:
    # It may have left out just that, as known.
    pending = fix.submits(wheel_entry(1, "", "q"), timeout=10)
    fix.wheel.repair(wheel_entry(2, "", "q"), lambda _worked: None)

    fix.ends(None)
    assert len(fix.declared) == 2
    assert fix.released == []
    fix.ends(None)
    fix.ends(None)

    assert fix.released == [pending]
    assert len(fix.declared) == 3


def test_what_was_declared_for_one_delay_is_not_asked_for_again_by_the_next() -> None:
    known = wheel_entry(0x23, "", "q").stops

    lower, higher = (wheel_entry(seconds, "", "q").topology(known) for seconds in (0x5, 0x120))

    assert [exchange.name for exchange in lower.exchanges] == ["amqp_tasks.delay.0.5"]
    assert lower.queue_names == ("amqp_tasks.delay.0.5",)
    assert {binding.destination for binding in lower.bindings} == {"amqp_tasks.delay.0.5"}
    assert [exchange.name for exchange in higher.exchanges] == ["amqp_tasks.delay.2", "amqp_tasks.delay.2.1"]
    assert higher.queue_names == ("amqp_tasks.delay.2.1",)
    assert {binding.destination for binding in higher.bindings} == {
        "amqp_tasks.delay.2.1",
        "amqp_tasks.delay.1",
    }
    assert wheel_entry(5, "", "q", is_high=True).topology(known).exchanges != ()


@pytest.fixture
def publisher() -> Publisher:
    ignore = MagicMock()
    return Publisher(
        ignore,
        clock=FakeClock(),
        tally=Tally(FakeClock()),
        window=10,
        setup_timeout=10.0,
        need_connection=ignore,
        drop_connection=ignore,
        repair=ignore,
        doing=str,
    )


@pytest.mark.parametrize("end", ["on_refused", "give_up"])
def test_the_end_of_the_publisher_ends_those_that_are_held(publisher: Publisher, end: str) -> None:
    outcomes: list[PublishError | None] = []
    message = OutgoingMessage(exchange="", routing_key="q", body=b"", properties=Properties())
    assert publisher.hold(Pending(message, b"", 2000.0, CallbackOutcome(outcomes.append)))

    if end == "on_refused":
        publisher.on_refused(LOST)
    else:
        publisher.give_up("the test ends it")

    (error,) = outcomes
    assert isinstance(error, NotSent)
    assert publisher.outstanding == 0
