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
class Nodes:
    """Nodes of one queue that get `messages` at once, and a wheel that is up to 50 ms late."""

    rate: float
    messages: int
    count: int
    random: Random = field(default_factory=lambda: Random(1))
    starts: list[list[float]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    rounds: int = 0

    def run(self) -> None:
        buckets = [Bucket(interval=1 / self.rate) for _ in range(self.count)]
        self.starts = [[] for _ in buckets]
        numbers = itertools.count()
        # When, a number that orders those of one time, which message, at which node, whether it has waited, its turn or 0.
        events = [
            (1000.0, next(numbers), message, message % self.count, False, 0.0)
            for message in range(self.messages)
        ]
        while events:
            now, _, message, node, has_waited, turn = heapq.heappop(events)
            bucket = buckets[node]
            seconds = bucket.start(now, turn) if turn else bucket.place(now, has_waited=has_waited)
            if turn and not seconds:
                self.starts[node].append(now)
                self.order.append(message)
                continue
            if turn and seconds > HOLD_LIMIT:
                seconds = bucket.place(now, has_waited=has_waited)
            if seconds <= HOLD_LIMIT:
                due = now + seconds
                began = due + self.random.random() * 0.002
                heapq.heappush(events, (began, next(numbers), message, node, has_waited, turn or due))
            else:
                self.rounds += 1
                back = now + max(1, int(seconds - LEAD)) + self.random.random() * 0.05
                other = self.random.randrange(self.count)
                heapq.heappush(events, (back, next(numbers), message, other, True, 0.0))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("count", [1, 3])
def test_starts_are_an_interval_apart_and_few_turns_are_lost(rate: float, count: int) -> None:
    nodes = Nodes(rate, messages=300, count=count)

    nodes.run()

    assert sorted(nodes.order) == list(range(300))
    gaps = [later - sooner for starts in nodes.starts for sooner, later in itertools.pairwise(starts)]
    assert min(gaps) >= 1 / rate - 1e-9
    everything = sorted(itertools.chain.from_iterable(nodes.starts))
    # Where several share a queue, a turn that one gave is sometimes met by another that has none left.
    assert everything[-1] - everything[0] <= 299 / rate / count * (1.1 if count == 1 else 1.5)
    assert nodes.rounds <= nodes.messages * (1.1 if count == 1 else 2.5)


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
