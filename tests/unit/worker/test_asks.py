"""The supervisor's answers about redelivered tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from amqp_tasks.worker._asks import WAIT_FOR_EXIT, Answers
from amqp_tasks.worker._verdicts import MAX_AGE, CrashTable, RecentKeys, Verdict, describe_status


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

    def __post_init__(self) -> None:
        self.answers = Answers(reply=lambda *reply: self.replies.append(reply), clock=self.clock)

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

    assert [table.charge("a", "signal 9"), table.charge("a", "exit code 1")] == [1, 2]
    assert table.look_up("a") == (2, "exit code 1")
    table.charge("b", "x")
    table.charge("c", "x")
    assert table.look_up("a") == (0, "")


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
