"""When a queue whose tasks fail is left alone, and when it is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from amqp_tasks.app._execution import Outcome
from amqp_tasks.errors import Ignore, Reject, Retry, Snooze
from amqp_tasks.message import State
from amqp_tasks.worker._breaker import MAX_PAUSE, BreakerRules, Breakers, is_error

DONE = Outcome(state=State.SUCCESS)
FAILED = Outcome(state=State.FAILURE, exception=ValueError("no"))


class Fixture:
    """Breakers of a process whose control thread does what is due when the test says so."""

    def __init__(self, ratio: float | None = 0.5, runs: int = 4, pause: float = 10.0) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.changes: list[frozenset[str]] = []
        self.breakers = Breakers(
            BreakerRules(ratio=ratio, runs=runs, pause=pause),
            call_later=lambda seconds, what: self.due.append((seconds, what)),
            on_change=lambda: self.changes.append(self.breakers.queue_names),
        )

    def runs(self, *outcomes: Outcome, queue_name: str = "q") -> None:
        for outcome in outcomes:
            self.breakers.observe(queue_name, outcome)

    def passes(self) -> list[float]:
        """Carry out what is planned; returns after how many seconds each was."""
        due, self.due = self.due, []
        for _, what in due:
            what()
        return [seconds for seconds, _ in due]

    def at_once(self) -> None:
        """Carry out what is due now."""
        due, self.due = self.due, [each for each in self.due if each[0]]
        for seconds, what in due:
            if not seconds:
                what()


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        ((FAILED, FAILED, FAILED), False),
        ((FAILED, DONE, DONE, DONE, FAILED), False),
        ((FAILED, DONE, DONE, FAILED), True),
        ((DONE, DONE, DONE, DONE, FAILED, FAILED), True),
    ],
)
def test_row_b040_it_opens_when_enough_of_the_last_runs_failed(
    outcomes: tuple[Outcome, ...], is_open: bool
) -> None:
    fix = Fixture()

    fix.runs(*outcomes)
    fix.at_once()

    assert fix.breakers.queue_names == (frozenset({"q"}) if is_open else frozenset())


def test_each_queue_has_its_own() -> None:
    fix = Fixture()
    fix.runs(*[FAILED] * 4)
    fix.runs(*[FAILED] * 4, queue_name="other")
    fix.runs(*[DONE] * 4, queue_name="third")
    fix.at_once()

    assert fix.breakers.queue_names == {"q", "other"}
    assert fix.changes == [{"q"}, {"q", "other"}]


def test_a_probe_that_succeeds_closes_it_and_the_past_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    fix = Fixture()
    with caplog.at_level(logging.INFO, "amqp_tasks.worker"):
        fix.runs(*[FAILED] * 4)
        assert fix.passes() == [0.0, 10.0]
        fix.runs(DONE, FAILED, FAILED, FAILED)

    assert fix.due == []
    assert fix.breakers.queue_names == frozenset()
    assert [getattr(record, "action", "") for record in caplog.records] == ["breaker_open", "breaker_closed"]
    assert "4 of its last 4 runs failed; this process runs nothing of it for 10 s" in caplog.text


def test_a_probe_that_fails_opens_it_for_longer_each_time_within_bounds() -> None:
    fix = Fixture()
    fix.runs(*[FAILED] * 4)
    pauses: list[float] = []

    for _ in range(8):
        pauses.append(max(fix.passes()))
        fix.runs(FAILED)

    assert pauses == [10, 20, 40, 80, 160, 320, MAX_PAUSE, MAX_PAUSE]
    fix.passes()
    fix.runs(DONE)
    fix.runs(*[FAILED] * 4)
    assert max(fix.passes()) == 10


def test_what_ends_while_it_is_open_is_no_probe() -> None:
    fix = Fixture()
    fix.runs(*[FAILED] * 4)
    fix.at_once()

    fix.runs(DONE, DONE, DONE, DONE)

    assert fix.breakers.queue_names == {"q"}


def test_without_a_ratio_and_after_the_end_nothing_changes() -> None:
    never, over = Fixture(ratio=None), Fixture()
    never.runs(*[FAILED] * 100)
    over.runs(*[FAILED] * 4)

    over.breakers.close()
    over.passes()

    assert never.due == []
    assert over.changes == []


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (DONE, False),
        (FAILED, True),
        (Outcome(state=State.FAILURE, exception=ValueError(), is_expected=True), False),
        (Outcome(state=State.FAILURE, exception=ValueError(), is_invalid=True), None),
        (Outcome(state=State.RETRY, exception=Retry(exc=OSError())), True),
        (Outcome(state=State.RETRY, exception=Retry("later")), None),
        *((Outcome(state="X", exception=each), None) for each in (Ignore(), Reject(), Snooze(1))),
    ],
)
def test_what_counts_as_an_error(outcome: Outcome, answer: bool | None) -> None:
    assert is_error(outcome) is answer
