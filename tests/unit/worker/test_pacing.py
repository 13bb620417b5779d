"""Where a delivery of a task with a rate limit waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.message import RATE_HEADER, SNOOZES_HEADER
from amqp_tasks.worker._again import sent_round
from amqp_tasks.worker._holding import Holding
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._pacing import MOST_HELD, Pacing
from amqp_tasks.worker._rates import RateLimits
from amqp_tasks.worker._tokens import Tokens
from support.fake_deliveries import FakeClock, job_of

_app = App("pacing", broker="memory://pacing/")
ACT = _app.task(name="act")(print)


class Fixture:
    """A `Pacing` with a clock and timers that the test moves; eight starts in a second unless it says otherwise."""

    def __init__(self) -> None:
        self.clock, self.log = FakeClock(), list[tuple[str, Any]]()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.limits = RateLimits({"act": 8.0}, clock=self.clock)
        self.holding = Holding(
            ledger=Ledger(in_flight=10), effects=self, call_later=self._call_later, clock=self.clock
        )
        self.tokens = Tokens(
            (), transport=_app.transport, holding=self.holding, effects=self, clock=self.clock
        )
        self.pacing = Pacing(
            limits=self.limits, tokens=self.tokens, holding=self.holding, effects=self, clock=self.clock
        )

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.seconds + delay, callback))

    def hand_back(self, jobs: Sequence[Job]) -> None:
        self.log.append(("hand back", [job.name for job in jobs]))

    def resize(self) -> None:
        """Not looked at here."""

    def run_soon(self, jobs: Sequence[Job]) -> None:
        self.log.append(("run soon", [job.name for job in jobs]))

    def take_turn_later(self, job: Job, seconds: int) -> None:
        self.log.append(("later", (job.name, seconds)))

    def arrive(self, *names: str, **headers: Any) -> list[str]:
        """Those that may have a slot at once."""
        jobs = [job_of(name, headers=headers) for name in names]
        for job in jobs:
            job.task = ACT
        return [job.name for job in self.pacing.sort(jobs)]

    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds
        due = [timer for timer in self.timers if timer[0] <= self.clock.seconds]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback in due:
            callback()


@pytest.fixture
def fix() -> Iterator[Fixture]:
    made = Fixture()
    yield made
    made.limits.close()


def test_near_turns_are_held_and_far_ones_wait_in_the_broker(fix: Fixture) -> None:
    assert fix.arrive(*(str(number) for number in range(40))) == ["0"]

    assert fix.holding.count == 16
    assert [said[0] for said in fix.log] == ["later"] * 23
    # Back half a second to one and a half before their turns, so that those can be met.
    assert (fix.log[0][1], fix.log[-1][1]) == (("17", 1), ("39", 4))
    fix.wait(0.125)
    assert fix.log[-1] == ("run soon", ["1"])


def test_one_that_is_refused_at_the_slot_is_held_for_the_rest(fix: Fixture) -> None:
    job = job_of("refused")
    job.task = ACT

    fix.pacing.put_off(job, 0.25)

    assert fix.holding.count == 1
    fix.wait(0.25)
    assert fix.log == [("run soon", ["refused"])]


def test_one_that_is_refused_for_long_waits_in_the_broker(fix: Fixture) -> None:
    fix.limits.change("act", 0.1)
    fix.limits.start("act", fix.clock.seconds)
    job = job_of("refused")
    job.task = ACT

    fix.pacing.put_off(job, 10.0)

    assert fix.log == [("later", ("refused", 9))]


def test_a_process_holds_a_bounded_number(fix: Fixture) -> None:
    fix.limits.change("act", 1024.0)

    fix.arrive(*(str(number) for number in range(MOST_HELD + 100)))

    assert fix.holding.count == MOST_HELD
    assert fix.log == [("later", (str(number), 1)) for number in range(MOST_HELD + 1, MOST_HELD + 100)]


def test_those_that_are_held_for_one_purpose_are_taken_in_their_order_and_not_released_any_more(
    fix: Fixture,
) -> None:
    released: list[str] = []

    def release(jobs: Sequence[Job]) -> None:
        released.extend(job.name for job in jobs)

    for name, seconds in (("second", 20.0), ("first", 10.0), ("third", 30.0)):
        fix.holding.hold(job_of(name), seconds, release)
    fix.holding.hold(job_of("other"), 1.0, print)

    taken = fix.holding.take(release)

    assert taken is not None
    assert taken.name == "first"
    assert fix.holding.count_of(release) == 2
    fix.wait(15.0)
    fix.wait(20.0)
    assert released == ["second", "third"]
    assert fix.holding.take(release) is None


def test_some_of_those_that_are_held_can_be_handed_back(fix: Fixture) -> None:
    for name in ("a", "b", "c"):
        fix.holding.hold(job_of(name), 10.0, print)

    fix.holding.hand_back(lambda job: job.name != "b")

    assert (fix.log, fix.holding.count) == ([("hand back", ["a", "c"])], 1)


def test_those_without_a_limit_pass(fix: Fixture) -> None:
    fix.limits.change("act", 0.0)

    assert fix.arrive("a", "b") == ["a", "b"]


def test_the_mark_of_one_that_has_waited_counts_for_its_run_only(fix: Fixture) -> None:
    job = job_of("waited", headers={"retries": 1, SNOOZES_HEADER: 2})

    headers = sent_round(job, 5.0, is_paced=True).properties.headers

    for retries, has_waited in ((1, True), (2, False)):
        assert fix.pacing.has_waited(job_of("waited", headers={**headers, "retries": retries})) is has_waited
    assert RATE_HEADER not in sent_round(job, 5.0).properties.headers


def test_what_waits_for_its_turn_is_told_apart_from_what_it_is_a_copy_of() -> None:
    headers = sent_round(job_of("waiting"), 5.0, is_paced=True).properties.headers

    assert job_of("waiting", headers=headers).key != job_of("waiting").key


def test_what_has_crashed_keeps_the_name_under_which_that_is_counted(fix: Fixture) -> None:
    job = job_of("poison", crashes=1)

    copy = job_of("poison", headers=sent_round(job, 5.0, is_paced=True).properties.headers)

    assert copy.key == job.key
    assert fix.pacing.has_waited(copy)
