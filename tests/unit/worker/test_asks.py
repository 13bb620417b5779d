"""The supervisor's answers about redelivered tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import JournalEntry
from amqp_tasks.worker._asks import CRASH, TIMED_OUT, WAIT_FOR_EXIT, WAIT_FOR_NEWS, Answers
from amqp_tasks.worker._claims import Claims
from amqp_tasks.worker._verdicts import (
    MAX_AGE,
    MAX_CRASH_AGE,
    CrashTable,
    RecentKeys,
    Verdict,
    describe_status,
)


@dataclass
class FakeClock:
    seconds: float = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


@dataclass
class Node:
    clock: FakeClock = field(default_factory=FakeClock)
    replies: list[tuple[int, int, dict[str, Verdict]]] = field(default_factory=list)
    told: list[JournalEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.claims = Claims(after=100.0, tell=self._tell, clock=self.clock)
        self.answers = Answers(
            reply=lambda *reply: self.replies.append(reply),
            tell=self._tell,
            claims=self.claims,
            clock=self.clock,
        )

    def _tell(self, kind: str, entry_id: str, facts: dict[str, Any]) -> None:
        self.told.append(self.entry(kind, entry_id, facts))

    def entry(self, kind: str, entry_id: str, facts: dict[str, Any], *, age: float = 0.0) -> JournalEntry:
        time = self.clock.seconds - age
        return JournalEntry(kind=kind, id=entry_id, time=time, sender="n@h", facts=facts)

    def process(self, number: int, *running: str) -> list[str]:
        keys = list(running)
        self.answers.joined(number, lambda: keys)
        return keys


@pytest.fixture
def node() -> Node:
    return Node()


def test_an_id_that_nobody_knows_is_answered_at_once(node: Node) -> None:
    node.process(1)

    node.answers.ask(1, 7, ["new"])

    assert node.replies == [(1, 7, {})]


def test_a_crash_that_is_not_known_yet_is_waited_for(node: Node) -> None:
    node.process(1)
    node.process(2, "boom")
    node.answers.ask(1, 1, ["boom", "other"])
    assert node.replies == []

    charged = node.answers.left(2, "signal 9")

    assert charged == (("boom", 1),)
    assert node.replies == [(1, 1, {"boom": Verdict(crashes=1, cause="signal 9")})]


def test_a_process_that_lives_on_has_only_lost_its_connection(node: Node) -> None:
    node.process(1)
    node.process(2, "long")
    node.answers.ask(1, 1, ["long"])

    node.clock.seconds += WAIT_FOR_EXIT
    node.answers.review()

    assert node.replies == [(1, 1, {"long": Verdict(is_running=True)})]


def test_what_a_process_says_it_still_has_is_running_without_a_wait(node: Node) -> None:
    node.process(1)
    node.process(2, "long")
    node.answers.tell_open(2, ["long", "settling"])

    node.answers.ask(1, 1, ["long", "settling"])

    running = Verdict(is_running=True)
    assert node.replies == [(1, 1, {"long": running, "settling": running})]


def test_what_was_refused_with_a_lost_refusal_is_told(node: Node) -> None:
    node.process(1)
    node.process(2)
    node.answers.tell_open(2, ["refused"])
    node.answers.tell_refused(2, ["refused"])

    node.answers.ask(1, 1, ["refused"])

    assert node.replies == [(1, 1, {"refused": Verdict(is_refused=True)})]


def test_what_finished_with_a_lost_ack_is_told(node: Node) -> None:
    node.process(1)
    node.process(2)
    node.answers.tell_open(2, ["done"])
    node.answers.tell_finished(2, ["done"])

    node.answers.ask(1, 1, ["done"])

    assert node.replies == [(1, 1, {"done": Verdict(is_finished=True)})]


def test_a_killed_process_is_not_charged(node: Node) -> None:
    node.process(1)
    node.process(2, "stopped")

    assert node.answers.left(2, None) == ()
    node.answers.ask(1, 1, ["stopped"])

    assert node.replies == [(1, 1, {})]


def test_the_question_of_a_dead_process_is_dropped(node: Node) -> None:
    node.process(1)
    node.process(2, "boom")
    node.answers.ask(1, 1, ["boom"])

    node.answers.left(1, None)
    node.answers.left(2, "signal 9")

    assert node.replies == []
    assert node.answers.next_deadline is None


def test_crashes_add_up_and_the_oldest_ids_are_forgotten() -> None:
    table = CrashTable(maximum=2)

    assert [table.charge("a", "signal 9", "1"), table.charge("a", "exit code 1", "2")] == [1, 2]
    assert (len(table.look_up("a").ids), table.look_up("a").cause) == (2, "exit code 1")
    table.charge("b", "x", "3")
    table.charge("c", "x", "4")
    assert not table.look_up("a").ids


def test_a_crash_that_is_told_twice_counts_once() -> None:
    table = CrashTable()

    assert [table.charge("a", "signal 9", crash_id) for crash_id in ("1", "1", "2", "1")] == [1, 1, 2, 2]


def test_crashes_are_forgotten_a_day_after_the_last() -> None:
    clock = FakeClock()
    table = CrashTable(clock=clock)

    assert table.charge("a", "x", "1", age=MAX_CRASH_AGE) == 0
    assert table.charge("a", "x", "2", age=MAX_CRASH_AGE - 10) == 1
    clock.seconds += 9
    assert table.charge("a", "x", "3", age=100) == 2
    clock.seconds += MAX_CRASH_AGE - 100
    assert not table.look_up("a").ids
    assert table.charge("a", "x", "4") == 1


def test_other_nodes_are_told_of_crashes_and_of_what_has_timed_out() -> None:
    here, there = Node(), Node()
    here.process(1, "boom", "slow")
    there.process(1)

    here.answers.left(1, "signal 9", ["slow"])
    for entry in (*here.told, *here.told):
        there.answers.apply(entry)
        here.answers.apply(entry)  # what we said comes back
    there.clock.seconds += 1
    there.answers.ask(1, 1, ["boom", "slow", "other"])
    there.clock.seconds += WAIT_FOR_NEWS
    there.answers.review()

    expected = {"boom": Verdict(crashes=1, cause="signal 9"), "slow": Verdict(is_timed_out=True)}
    assert [entry.kind for entry in here.told] == [TIMED_OUT, CRASH]
    assert there.replies == [(1, 1, expected)]
    here.process(2)
    here.answers.ask(2, 1, ["boom"])
    here.clock.seconds += WAIT_FOR_NEWS
    here.answers.review()
    assert here.replies == [(2, 1, {"boom": expected["boom"]})]


def test_news_of_another_crash_are_waited_for_when_there_were_some_before(node: Node) -> None:
    node.process(1)
    node.answers.apply(node.entry(CRASH, "1", {"key": "boom", "cause": "signal 9"}))
    node.clock.seconds += 1

    node.answers.ask(1, 1, ["boom"])
    assert node.replies == []
    node.answers.apply(node.entry(CRASH, "2", {"key": "boom", "cause": "signal 11"}, age=0.2))

    assert node.replies == [(1, 1, {"boom": Verdict(crashes=2, cause="signal 11")})]


def test_what_timed_out_elsewhere_long_ago_counts_no_more(node: Node) -> None:
    node.process(1)
    node.answers.apply(node.entry(TIMED_OUT, "1", {"keys": ["old"]}, age=MAX_AGE + 1))

    node.answers.ask(1, 1, ["old"])

    assert node.replies == [(1, 1, {})]


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (CRASH, {}),
        (CRASH, {"key": 1, "cause": "x"}),
        (CRASH, {"key": "a", "cause": None}),
        (TIMED_OUT, {"keys": "a"}),
    ],
)
def test_verdicts_of_other_types_are_refused(node: Node, kind: str, facts: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        node.answers.apply(node.entry(kind, "1", facts))


def test_finished_ids_are_bounded() -> None:
    table = RecentKeys(maximum=2)
    table.add(["a", "b", "c"])

    assert [key in table for key in "abc"] == [False, True, True]


def test_an_id_that_comes_again_long_after_it_finished_is_another_run(node: Node) -> None:
    node.process(1)
    node.answers.tell_finished(1, ["nightly"])

    node.clock.seconds += MAX_AGE
    node.answers.ask(1, 1, ["nightly"])

    assert node.replies == [(1, 1, {})]


@pytest.mark.parametrize(
    ("status", "text"), [(-9, "signal 9 (SIGKILL)"), (3, "exit code 3"), (-250, "signal 250")]
)
def test_statuses_are_told_in_words(status: int, text: str) -> None:
    assert describe_status(status) == text


def test_what_was_overdue_is_not_charged_and_has_timed_out(node: Node) -> None:
    node.process(1, "slow", "beside")
    node.process(2)

    charged = node.answers.left(1, "signal 9 (SIGKILL)", ["slow"])
    node.answers.ask(2, 7, ["slow", "beside"])

    assert charged == (("beside", 1),)
    assert node.replies == [
        (
            2,
            7,
            {"slow": Verdict(is_timed_out=True), "beside": Verdict(crashes=1, cause="signal 9 (SIGKILL)")},
        )
    ]
