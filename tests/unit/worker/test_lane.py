"""What a process makes of a limit that holds for all nodes."""

from __future__ import annotations

import pytest

from amqp_tasks.message import token_plan
from amqp_tasks.settings._rate import is_cluster_rate
from amqp_tasks.worker._lane import Audit, Lane


@pytest.mark.parametrize(
    ("rate", "count", "interval_ms"),
    [
        (1 / 3600, 1, 3_600_000),
        (10 / 60, 1, 6000),
        (7, 1, 143),
        (10, 1, 100),
        (15, 2, 134),
        (100, 10, 100),
        (1000, 100, 100),
    ],
)
def test_a_token_waits_a_tenth_of_a_second_at_least_and_together_they_are_no_faster_than_the_rate(
    rate: float, count: int, interval_ms: int
) -> None:
    plan = token_plan("task", rate)

    assert (plan.count, plan.interval_ms) == (count, interval_ms)
    assert plan.rate <= rate + 1e-9


def test_tokens_of_another_rate_lie_in_other_queues() -> None:
    names = {token_plan("task", rate).queue_name for rate in (1, 2, 20, 40)}

    assert len(names) == 4


def test_a_task_with_a_long_name_has_queues_with_names_that_the_broker_takes() -> None:
    plan = token_plan("t" * 255, 1)

    assert len(plan.lock.queue_names[0].encode()) <= 255
    assert plan.queue_name != token_plan("t" * 254, 1).queue_name


def test_rates_beyond_what_tokens_can_do_are_none() -> None:
    assert [is_cluster_rate(rate) for rate in (0, 1e-7, 1e-6, 1000, 1001)] == [
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_few_wait_in_the_process_and_the_others_stand_in_line_behind_them() -> None:
    lane = Lane(token_plan("task", 10))

    assert [lane.place(0.0, waiting=number, has_waited=False) for number in range(lane.room)] == [0.0] * 20
    first, second = (lane.place(0.0, waiting=20, has_waited=False) for _ in range(2))
    assert first == 2.0
    assert second == pytest.approx(2.0 + lane.interval)


def test_who_comes_back_goes_before_those_that_come_first() -> None:
    lane = Lane(token_plan("task", 10))
    lane.place(0.0, waiting=lane.room, has_waited=False)

    assert lane.place(1.0, waiting=3, has_waited=True) == 0.0
    assert lane.place(1.0, waiting=3, has_waited=False) > 0.0


def test_the_more_processes_share_the_tokens_the_later_each_has_its_deliveries_back() -> None:
    alone, shared = Lane(token_plan("task", 100)), Lane(token_plan("task", 100), sharers=10)

    assert shared.interval == pytest.approx(10 * alone.interval)
    assert shared.room < alone.room


def test_of_a_slow_task_each_process_always_has_one_at_hand() -> None:
    lane = Lane(token_plan("task", 1 / 3600), sharers=50)

    assert lane.room >= 1
    assert lane.interval <= 3600


def test_tokens_are_missing_only_when_many_looks_say_so() -> None:
    audit = Audit(1)

    assert [audit.note(0) for _ in range(5)] == [0, 0, 0, 0, -1]
    audit.forget()
    assert [audit.note(seen) for seen in (0, 0, 0, 0, 1, 0)] == [0] * 6


def test_some_of_several_are_missing_only_when_very_many_looks_say_so() -> None:
    audit = Audit(10)

    found = [audit.note(6 + number % 3) for number in range(30)]

    assert found == [0] * 29 + [-2]


def test_too_many_are_suspected_at_the_second_look() -> None:
    audit = Audit(1)

    assert [audit.note(seen) for seen in (2, 1, 2, 3)] == [0, 0, 0, 2]
