"""Whose turn it is: the limit in any case, and lines that lose few turns."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.worker._bucket import HOLD_LIMIT, Bucket
from amqp_tasks.worker._pacing import LEAD

RATES = (100.0, 10.0, 1.0, 0.5, 1 / 6)


@dataclass
class Node:
    """A node that gets `messages` at once, and a wheel that is up to 50 ms late."""

    rate: float
    messages: int
    random: Random = field(default_factory=lambda: Random(1))
    starts: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    rounds: int = 0

    def run(self) -> None:
        bucket, numbers = Bucket(interval=1 / self.rate), itertools.count()
        # When, a number that orders those of one time, which message, whether it has waited, its turn or None.
        events = [(1000.0, next(numbers), message, False, 0.0) for message in range(self.messages)]
        while events:
            now, _, message, has_waited, turn = heapq.heappop(events)
            seconds = bucket.start(now, turn) if turn else bucket.place(now, has_waited=has_waited)
            if turn and not seconds:
                self.starts.append(now)
                self.order.append(message)
                continue
            if turn and seconds > HOLD_LIMIT:
                seconds = bucket.place(now, has_waited=has_waited)
            if seconds <= HOLD_LIMIT:
                due = now + seconds
                began = due + self.random.random() * 0.002
                heapq.heappush(events, (began, next(numbers), message, has_waited, turn or due))
            else:
                self.rounds += 1
                back = now + max(1, int(seconds - LEAD)) + self.random.random() * 0.05
                heapq.heappush(events, (back, next(numbers), message, True, 0.0))


@pytest.mark.parametrize("rate", RATES)
def test_starts_are_an_interval_apart_and_hardly_any_turn_is_lost(rate: float) -> None:
    node = Node(rate, messages=300)

    node.run()

    assert sorted(node.order) == list(range(300))
    gaps = [later - sooner for sooner, later in itertools.pairwise(node.starts)]
    assert min(gaps) >= 1 / rate - 1e-9
    # Fast ones are as late for each start as the slot is.
    assert node.starts[-1] - node.starts[0] <= 299 / rate * 1.25
    assert node.rounds <= 2 * node.messages


@given(
    rate=st.sampled_from(RATES),
    steps=st.lists(
        st.tuples(st.sampled_from(["place", "start", "began"]), st.floats(0.0, 20.0), st.booleans()),
        max_size=60,
    ),
)
def test_no_sequence_of_events_lets_two_start_within_an_interval(
    rate: float, steps: list[tuple[str, float, bool]]
) -> None:
    bucket, now, turn, started = Bucket(interval=1 / rate), 1000.0, 1000.0, list[float]()

    for step, pause, has_waited in steps:
        now += pause
        if step == "place":
            wait = bucket.place(now, has_waited=has_waited)
            assert wait >= 0
            turn = now + wait
        elif step == "began":
            bucket.began(now)
        elif not bucket.start(now, turn):
            started.append(now)

    assert all(later - sooner >= 1 / rate - 1e-9 for sooner, later in itertools.pairwise(started))


def test_one_that_comes_new_does_not_pass_those_that_wait_in_the_broker() -> None:
    bucket = Bucket(interval=10.0)
    assert bucket.start(100.0, 100.0) == 0.0
    assert bucket.place(100.0, has_waited=False) == 10.0
    assert bucket.place(100.0, has_waited=False) == 20.0

    # The turn of the first of them has come, and it is not back yet.
    assert bucket.place(110.0, has_waited=False) == 20.0
    assert bucket.place(110.0, has_waited=True) == 0.0


def test_what_had_to_go_again_does_not_go_behind_all_others() -> None:
    bucket = Bucket(interval=10.0)
    bucket.start(100.0, 100.0)
    for _ in range(50):
        bucket.place(100.0, has_waited=False)

    assert bucket.place(102.0, has_waited=True) == 8.0
    assert bucket.place(102.0, has_waited=True) == 18.0


def test_a_start_that_begins_late_in_its_slot_counts_from_there() -> None:
    bucket = Bucket(interval=1.0)
    bucket.start(100.0, 100.0)

    bucket.began(100.75)

    assert bucket.start(101.5, 101.0) == 0.25


def test_another_limit_counts_from_the_last_start() -> None:
    bucket = Bucket(interval=1.0)
    bucket.start(100.0, 100.0)
    bucket.place(100.0, has_waited=False)

    bucket.change(60.0)

    assert bucket.start(100.0, 100.0) == 60.0
    assert bucket.place(150.0, has_waited=False) == 10.0
