"""When a process tells what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from amqp_tasks.errors import NotSent
from amqp_tasks.message import read_counts, read_journal_entry
from amqp_tasks.transport._tally import Tally
from amqp_tasks.transport.rabbitmq._counts import MAX_PAUSE, CountReports
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._publisher import Publisher
from support.fake_deliveries import FakeClock


@dataclass
class Timers:
    """The part of an I/O loop that is used here."""

    waiting: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def call_guarded(self, delay: float, work: Callable[[], None]) -> None:
        self.waiting.append((delay, work))

    def fire(self) -> float:
        """Let the only timer pass; its delay."""
        ((delay, work),) = self.waiting
        self.waiting.clear()
        work()
        return delay


@dataclass
class Door:
    """The part of a publisher."""

    is_flowing: bool = True
    confirmed_exchanges: set[str] = field(default_factory=lambda: {""})
    sent: list[Pending] = field(default_factory=list)

    def submit(self, pending: Pending) -> None:
        self.sent.append(pending)


class Fixture:
    def __init__(self) -> None:
        self.timers, self.door, self.tally = Timers(), Door(), Tally(FakeClock())
        self.is_at_hand = False
        self.reports = CountReports(
            cast("DoorLoop", self.timers),
            cast("Publisher", self.door),
            self.tally,
            clock=FakeClock(),
            is_at_hand=lambda: self.is_at_hand,
        )
        self.reports.begin()

    def told(self) -> list[Any]:
        """Number, last word and accepted of each report."""
        found = [read_counts(read_journal_entry(each.message.body)) for each in self.door.sent]
        return [(each.number, each.is_last, each.counts["accepted"]) for each in found if each]


@pytest.fixture
def it() -> Fixture:
    return Fixture()


def test_it_tells_soon_then_less_and_less_often_and_nothing_twice(it: Fixture) -> None:
    it.reports.begin()  # a second connection
    it.tally.add("accepted")
    pauses = [it.timers.fire() for _ in range(3)]
    it.tally.add("accepted")
    pauses += [it.timers.fire() for _ in range(5)]

    assert pauses == [1, 2, 4, 8, 16, 32, MAX_PAUSE, MAX_PAUSE]
    assert it.told() == [(1, False, 1), (2, False, 2)]


def test_the_last_word_comes_once_and_nothing_after_it(it: Fixture) -> None:
    it.tally.add("accepted")
    it.reports.end()
    it.reports.end()
    it.tally.add("accepted")
    it.timers.fire()

    assert it.told() == [(1, True, 1)]
    assert it.timers.waiting == []


def test_what_was_not_stored_is_told_with_the_next_one(it: Fixture) -> None:
    it.tally.add("accepted")
    it.timers.fire()
    it.door.sent[0].finish(NotSent("no"))
    it.timers.fire()
    it.door.sent[1].finish(None)
    it.timers.fire()

    assert it.told() == [(1, False, 1), (2, False, 1)]


@pytest.mark.parametrize(
    ("exchanges", "count", "is_told"),
    [
        ({""}, "accepted", True),
        ({"amqp_tasks.delay.1"}, "accepted", True),
        ({"orders"}, "accepted", False),
        (set(), "unknown", False),
        (set(), "done", True),
    ],
)
def test_who_may_not_have_the_right_does_not_try(
    it: Fixture, exchanges: set[str], count: str, is_told: bool
) -> None:
    it.door.confirmed_exchanges = exchanges
    it.tally.add(count)
    it.timers.fire()

    assert bool(it.door.sent) is is_told


def test_a_connection_that_was_never_needed_is_made_for_it(it: Fixture) -> None:
    it.tally.add("done")
    it.door.is_flowing, it.is_at_hand = False, True
    it.reports.end()

    assert len(it.door.sent) == 1


def test_nothing_waits_for_a_connection(it: Fixture) -> None:
    it.tally.add("accepted")
    it.door.is_flowing = False
    it.reports.end()

    assert it.door.sent == []
