"""Deliveries that came before their time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from amqp_tasks.worker._early import HOLD_LIMIT, PLAUSIBLE_SKEW, Early
from amqp_tasks.worker._holding import Holding
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from support.fake_deliveries import FakeClock, job_of

WHEEL = {"x-first-death-queue": "amqp_tasks.delay.0.3"}


class Fixture:
    """An `Early` with a clock and timers that the test moves."""

    def __init__(self) -> None:
        self.clock, self.log = FakeClock(), list[tuple[str, Any]]()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.ledger = Ledger(in_flight=10)
        self.holding = Holding(
            ledger=self.ledger, effects=self, call_later=self._call_later, clock=self.clock
        )
        self.early = Early(holding=self.holding, effects=self, clock=self.clock)

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.seconds + delay, callback))

    def admit(self, jobs: Sequence[Job]) -> None:
        self.log.append(("admit", [job.name for job in jobs]))

    def hand_back(self, jobs: Sequence[Job]) -> None:
        self.log.append(("hand back", [job.name for job in jobs]))

    def send_round(self, job: Job, seconds: float) -> None:
        self.log.append(("send round", (job.name, seconds)))

    def resize(self) -> None:
        self.log.append(("room", self.holding.room))

    def arrives(self, name: str, seconds: float, **headers: Any) -> bool:
        eta = self.clock.now() + timedelta(seconds=seconds)
        return self.early.keeps(job_of(name, headers=headers), eta)

    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds
        due = [timer for timer in self.timers if timer[0] <= self.clock.seconds]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback in due:
            callback()

    @property
    def fates(self) -> list[tuple[str, Any]]:
        return [entry for entry in self.log if entry[0] != "room"]


@pytest.fixture
def fix() -> Fixture:
    return Fixture()


def test_a_delivery_whose_time_has_come_is_not_kept(fix: Fixture) -> None:
    assert not fix.arrives("past", -1.0)
    assert not fix.arrives("now", 0.0)
    assert fix.holding.count == 0


def test_near_ones_are_admitted_in_the_order_of_their_times(fix: Fixture) -> None:
    assert fix.arrives("second", 0.5)
    assert fix.arrives("first", 0.25)
    assert fix.arrives("third", 0.75)

    fix.wait(0.24)
    assert fix.fates == []
    fix.wait(0.01)
    fix.wait(0.5)

    assert fix.fates == [("admit", ["first"]), ("admit", ["second", "third"])]
    assert fix.holding.count == 0


def test_timers_do_not_pile_up_while_some_are_always_held(fix: Fixture) -> None:
    for number in range(200):
        fix.arrives(f"{number} later", 1.0)
        fix.arrives(f"{number} sooner", 0.0625)
        fix.wait(0.0625)

    # Held are those of the last second; their timers do not grow with those that came before.
    assert fix.holding.count == 15
    assert len(fix.timers) <= 3


def test_a_far_one_waits_in_the_broker(fix: Fixture) -> None:
    assert fix.arrives("stock", HOLD_LIMIT + 0.5)

    assert fix.fates == [("send round", ("stock", HOLD_LIMIT + 0.5))]
    assert fix.holding.count == 0


def test_what_came_through_the_wheel_is_held_for_a_second_however_the_clocks_differ(fix: Fixture) -> None:
    assert fix.arrives("ahead", 600.0, **WHEEL)

    fix.wait(HOLD_LIMIT)

    assert fix.fates == [("admit", ["ahead"])]


def test_what_is_longer_than_the_wheel_goes_round_again(fix: Fixture) -> None:
    assert fix.arrives("long", PLAUSIBLE_SKEW + 1, **WHEEL)

    assert fix.fates == [("send round", ("long", PLAUSIBLE_SKEW + 1))]


def test_those_of_a_lost_connection_are_forgotten(fix: Fixture) -> None:
    fix.arrives("dropped", 0.5)
    fix.holding.drop(lambda _job: True)
    fix.arrives("lost", 0.5)
    fix.ledger.lose(1)

    fix.wait(0.5)

    assert fix.fates == []
    assert fix.holding.count == 0


def test_closing_hands_back_what_is_held_and_what_still_comes(fix: Fixture) -> None:
    fix.arrives("a", 0.5)

    fix.holding.close()
    fix.arrives("b", 0.5)
    fix.wait(0.5)

    assert fix.fates == [("hand back", ["a"]), ("hand back", ["b"])]


def test_held_ones_get_room_beside_those_that_run_until_there_are_none(fix: Fixture) -> None:
    for number in range(33):
        fix.arrives(str(number), 0.5)
    assert [entry for entry in fix.log if entry[0] == "room"] == [("room", 16), ("room", 32), ("room", 64)]

    fix.wait(0.5)
    fix.holding.tick()
    assert fix.log[-1][0] == "admit"
    fix.wait(5.0)
    fix.holding.tick()
    fix.holding.tick()

    assert [entry for entry in fix.log if entry[0] == "room"][3:] == [("room", 0)]
