"""Redelivered messages: asked about, held, given up, handed back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from amqp_tasks.transport import Delivery
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._redeliveries import ANSWER_LIMIT, ASK_AGAIN_AFTER, Redeliveries
from amqp_tasks.worker._verdicts import Answer, Verdict
from support.fake_deliveries import FakeClock, job_of, key


@dataclass
class Asked:
    """Verdicts that answer when the test says so."""

    pending: list[tuple[list[str], Answer]] = field(default_factory=list)

    def ask(self, task_ids: Sequence[str], on_answer: Answer) -> None:
        self.pending.append((list(task_ids), on_answer))

    def tell_open(self, task_ids: Sequence[str]) -> None:
        raise AssertionError("not here")

    def tell_finished(self, task_ids: Sequence[str]) -> None:
        raise AssertionError("not here")

    def tell_refused(self, task_ids: Sequence[str]) -> None:
        raise AssertionError("not here")

    def answer(self, **found: Verdict) -> None:
        self.pending.pop(0)[1]({key(name): verdict for name, verdict in found.items()})


@dataclass
class Fates:
    log: list[tuple[str, Any]] = field(default_factory=list)

    def proceed(self, jobs: Sequence[Job]) -> None:
        self.log.append(("proceed", [(job.name, job.crashes) for job in jobs]))

    def hand_back(self, jobs: Sequence[Job]) -> None:
        self.log.append(("hand back", [job.name for job in jobs]))

    def acknowledge_duplicate(self, job: Job) -> None:
        self.log.append(("duplicate", job.name))

    def refuse_duplicate(self, job: Job) -> None:
        self.log.append(("refuse", job.name))

    def give_up(self, job: Job, verdict: Verdict) -> None:
        self.log.append(("give up", (job.name, verdict.crashes)))

    def time_out(self, job: Job) -> None:
        self.log.append(("time out", job.name))

    def resize(self) -> None:
        self.log.append(("resize", None))

    def let_go(self, stale: Delivery) -> None:
        self.log.append(("let go", stale))


class Fixture:
    def __init__(self) -> None:
        self.clock, self.asked, self.fates = FakeClock(), Asked(), Fates()
        self.ledger = Ledger(in_flight=10)
        self.redeliveries = Redeliveries(
            ledger=self.ledger, verdicts=self.asked, effects=self.fates, crash_limit=3, clock=self.clock
        )


@pytest.fixture
def it() -> Fixture:
    return Fixture()


def test_each_verdict_has_its_fate(it: Fixture) -> None:
    it.redeliveries.take(
        [job_of(name) for name in ("fresh", "once", "often", "done", "refused", "slow", "elsewhere")]
    )
    assert it.redeliveries.count == 7

    it.asked.answer(
        once=Verdict(crashes=1),
        often=Verdict(crashes=3),
        done=Verdict(is_finished=True),
        refused=Verdict(is_refused=True),
        slow=Verdict(is_timed_out=True),
        elsewhere=Verdict(is_running=True),
    )

    assert it.fates.log == [
        ("give up", ("often", 3)),
        ("duplicate", "done"),
        ("refuse", "refused"),
        ("time out", "slow"),
        ("resize", None),
        ("proceed", [("fresh", 0), ("once", 1)]),
    ]
    assert it.redeliveries.count == 1


@pytest.mark.parametrize(
    "verdict",
    [Verdict(crashes=3, is_running=True), Verdict(is_timed_out=True, is_running=True)],
    ids=["crashed too often", "timed out"],
)
def test_what_is_given_up_by_another_process_just_now_is_held(it: Fixture, verdict: Verdict) -> None:
    # Its `on_dead` may run there: two of them would be two dead letters of one task.
    it.redeliveries.take([job_of("a")])

    it.asked.answer(a=verdict)

    assert it.redeliveries.held == 1
    assert it.fates.log == [("resize", None)]


def often_delivered(task_id: str, count: int) -> Job:
    return job_of(task_id, headers={"x-delivery-count": count})


def test_what_may_have_crashed_elsewhere_too_waits_once_for_the_news(it: Fixture) -> None:
    it.redeliveries.take([often_delivered("crasher", 3), often_delivered("unlucky", 3)])
    it.asked.answer(crasher=Verdict(crashes=1), unlucky=Verdict(crashes=1))
    assert it.redeliveries.held == 2
    it.clock.seconds += ASK_AGAIN_AFTER
    it.redeliveries.tick()

    it.asked.answer(crasher=Verdict(crashes=3), unlucky=Verdict(crashes=1))

    assert [fate for fate in it.fates.log if fate[0] != "resize"] == [
        ("give up", ("crasher", 3)),
        ("proceed", [("unlucky", 1)]),
    ]
    assert it.redeliveries.count == it.redeliveries.held == 0


@pytest.mark.parametrize(
    ("count", "crashes"), [(2, 1), (3, 0), (0, 1)], ids=["seldom", "handed back only", "not counted"]
)
def test_what_cannot_have_crashed_too_often_does_not_wait_for_news(
    it: Fixture, count: int, crashes: int
) -> None:
    it.redeliveries.take([often_delivered("a", count)])

    it.asked.answer(a=Verdict(crashes=crashes))

    assert it.fates.log == [("proceed", [("a", crashes)])]


def test_what_runs_here_is_adopted_without_asking(it: Fixture) -> None:
    running = job_of("a", epoch=1)
    it.ledger.open(running)
    it.ledger.lose(1)
    again = job_of("a", epoch=2)

    it.redeliveries.take([again])

    assert running.delivery is again.delivery
    assert it.asked.pending == []


def test_what_a_cancelled_consumer_had_is_settled_when_its_redelivery_is_adopted(it: Fixture) -> None:
    running = job_of("a")
    stale = running.delivery
    it.ledger.open(running)
    it.ledger.take_back("work")

    it.redeliveries.take([job_of("a", redelivered=True)])

    assert it.asked.pending == []
    assert it.fates.log == [("let go", stale)]


def test_a_held_delivery_is_asked_about_again_and_runs_when_its_process_died(it: Fixture) -> None:
    it.redeliveries.take([job_of("a")])
    it.asked.answer(a=Verdict(is_running=True))
    it.clock.seconds += ASK_AGAIN_AFTER

    it.redeliveries.tick()
    it.asked.answer(a=Verdict(crashes=1))

    assert it.fates.log[-1] == ("proceed", [("a", 1)])
    assert it.redeliveries.count == 0


def test_a_delivery_that_stays_held_is_told_of_and_given_room_once(
    it: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amqp_tasks")
    it.redeliveries.take([job_of("a")])
    for _ in range(3):
        it.asked.answer(a=Verdict(is_running=True))
        it.clock.seconds += ASK_AGAIN_AFTER
        it.redeliveries.tick()
        assert it.redeliveries.held == it.redeliveries.count == 1

    assert it.fates.log == [("resize", None)]
    assert caplog.text.count("its redelivery is held") == 1


def test_a_held_delivery_that_nobody_answers_about_any_more_goes_back_and_leaves_no_room(it: Fixture) -> None:
    it.redeliveries.take([job_of("a")])
    it.asked.answer(a=Verdict(is_running=True))
    it.clock.seconds += ASK_AGAIN_AFTER
    it.redeliveries.tick()
    it.clock.seconds += ANSWER_LIMIT
    it.redeliveries.tick()

    assert it.fates.log == [("resize", None), ("hand back", ["a"]), ("resize", None)]
    assert it.redeliveries.held == it.redeliveries.count == 0


def test_an_answer_that_never_comes_sends_the_delivery_back(it: Fixture) -> None:
    it.redeliveries.take([job_of("a")])
    it.clock.seconds += ANSWER_LIMIT

    it.redeliveries.tick()
    it.asked.answer()

    assert it.fates.log == [("hand back", ["a"])]


def test_closing_hands_back_what_waits_and_what_comes_later(it: Fixture) -> None:
    it.redeliveries.take([job_of("held")])
    it.asked.answer(held=Verdict(is_running=True))
    it.redeliveries.take([job_of("asked")])

    it.redeliveries.close()
    it.asked.answer()
    it.redeliveries.take([job_of("late")])

    assert it.fates.log[1:] == [("hand back", ["asked", "held"]), ("hand back", ["late"])]
    assert it.redeliveries.count == 0


def test_a_lost_connection_forgets_what_waits(it: Fixture) -> None:
    it.redeliveries.take([job_of("a", epoch=1)])

    it.redeliveries.drop(lambda job: job.delivery.epoch == 1)
    it.asked.answer()

    assert it.redeliveries.count == 0
    assert ("proceed", [("a", 0)]) not in it.fates.log


def test_a_held_delivery_whose_connection_is_lost_while_it_is_asked_about_is_dropped(it: Fixture) -> None:
    it.redeliveries.take([job_of("a", epoch=1)])
    it.asked.answer(a=Verdict(is_running=True))
    it.clock.seconds += ASK_AGAIN_AFTER

    # The loss comes when the control thread has taken it out, so that `drop` cannot see it.
    it.ledger.lose(1)
    it.redeliveries.tick()

    assert it.redeliveries.count == 0
    assert it.asked.pending == []
