"""Which job runs next, and when a process takes none."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from amqp_tasks.worker._dispatcher import BUSY_AFTER, Dispatcher, Flow
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._prefetch import Prefetch
from support.fake_deliveries import Effects, FakeClock, ManualPool, job_of


@dataclass
class Process:
    slots: int = 1
    clock: FakeClock = field(default_factory=FakeClock)
    effects: Effects = field(default_factory=Effects)
    closed_for: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool, self.prefetch = ManualPool(self.slots), Prefetch(slots=self.slots, maximum=256)
        self.dispatcher = Dispatcher(
            pool=self.pool,
            prefetch=self.prefetch,
            weights={},
            effects=self.effects,
            gate=lambda job: self.closed_for.get(job.name, 0.0),
            clock=self.clock,
        )

    @property
    def submitted(self) -> list[str]:
        return [job.name for job in self.pool.submitted if isinstance(job, Job)]

    def done(self, number: int = -1, *, seconds: float = 0.5) -> None:
        job = self.pool.submitted[number]
        assert isinstance(job, Job)
        self.dispatcher.done(job, seconds)


@pytest.fixture
def process() -> Process:
    return Process()


def test_jobs_run_one_per_slot_in_order(process: Process) -> None:
    process.dispatcher.take([job_of("a"), job_of("b", priority=5), job_of("c")])
    assert process.submitted == ["b"]

    process.done()
    process.done()

    assert process.submitted == ["b", "a", "c"]


def test_what_waits_behind_a_long_task_is_handed_back_after_a_second(process: Process) -> None:
    process.dispatcher.take([job_of("long"), job_of("x"), job_of("y")])
    process.clock.seconds += BUSY_AFTER - 0.01
    process.dispatcher.tick()
    assert process.dispatcher.flow is Flow.OPEN

    process.clock.seconds += 0.02
    process.dispatcher.tick()

    process.dispatcher.take([job_of("z")])
    assert process.effects.log[1:] == [("flow", False), ("hand back", ["x", "y"]), ("hand back", ["z"])]


def test_consuming_goes_on_when_a_slot_is_free_again(process: Process) -> None:
    process.dispatcher.take([job_of("long"), job_of("x")])
    process.clock.seconds += 2
    process.dispatcher.tick()

    process.done()

    assert process.effects.log[-1] == ("flow", True)
    process.dispatcher.take([job_of("next")])
    assert process.submitted == ["long", "next"]


def test_long_tasks_with_nothing_behind_them_change_nothing(process: Process) -> None:
    process.dispatcher.take([job_of("long")])
    process.clock.seconds += 100
    process.dispatcher.tick()

    assert process.dispatcher.flow is Flow.OPEN
    assert process.effects.log == [("begin", "long")]


def test_a_job_that_crashed_before_waits_for_the_slots_and_runs_alone() -> None:
    process = Process(slots=2)
    process.dispatcher.take([job_of("a"), job_of("boom", crashes=1), job_of("b")])
    assert process.submitted == ["a"]

    process.done(0)
    assert process.submitted == ["a", "boom"]
    process.dispatcher.take([job_of("c")])

    process.done()
    assert [said for said in process.effects.log if said[0] != "begin"] == [
        ("flow", False),
        ("hand back", ["b"]),
        ("hand back", ["c"]),
        ("flow", True),
    ]
    process.dispatcher.take([job_of("d"), job_of("e")])
    assert process.submitted == ["a", "boom", "d", "e"]


def test_what_the_gate_keeps_back_takes_no_slot_from_the_next(process: Process) -> None:
    process.closed_for["shut"] = 1.5
    shut, following = job_of("shut"), job_of("following")
    shut.turn = following.turn = process.clock.seconds

    process.dispatcher.take([shut, following])

    assert process.submitted == ["following"]
    assert ("put off", ("shut", 1.5)) in process.effects.log


def test_the_gate_is_not_asked_while_no_slot_is_free(process: Process) -> None:
    process.dispatcher.take([job_of("long")])
    process.closed_for["shut"] = 1.5
    shut = job_of("shut")
    shut.turn = process.clock.seconds

    process.dispatcher.take([shut])
    assert process.effects.log == [("begin", "long")]
    process.done()

    assert process.effects.log[-1] == ("put off", ("shut", 1.5))


def test_what_came_from_a_paused_queue_is_handed_back_until_it_goes_on(process: Process) -> None:
    process.dispatcher.take([job_of("long"), job_of("x", queue_name="mail"), job_of("y")])

    process.dispatcher.pause_queues(frozenset({"mail"}))
    process.dispatcher.take([job_of("z", queue_name="mail")])
    process.done()
    assert process.submitted == ["long", "y"]
    process.dispatcher.pause_queues(frozenset())
    process.dispatcher.take([job_of("again", queue_name="mail")])
    process.done()

    assert process.submitted == ["long", "y", "again"]
    handed_back = [said[1] for said in process.effects.log if said[0] == "hand back"]
    assert handed_back == [["x"], ["z"]]


def test_one_that_waits_to_run_alone_is_handed_back_with_its_queue() -> None:
    process = Process(slots=2)
    process.dispatcher.take([job_of("a"), job_of("boom", crashes=1, queue_name="mail")])

    process.dispatcher.pause_queues(frozenset({"mail"}))

    assert ("hand back", ["boom"]) in process.effects.log
    process.dispatcher.take([job_of("b")])
    assert process.submitted == ["a", "b"]


def test_closing_hands_back_what_was_not_started() -> None:
    process = Process(slots=2)
    process.dispatcher.take([job_of("a"), job_of("boom", crashes=2)])
    process.dispatcher.close()
    process.dispatcher.close()
    process.dispatcher.take([job_of("late")])

    assert [said for said in process.effects.log if said[0] == "hand back"] == [
        ("hand back", ["boom"]),
        ("hand back", ["late"]),
    ]
    process.done(0)
    assert process.dispatcher.running == 0
    assert process.submitted == ["a"]


def test_what_came_by_a_lost_connection_is_forgotten(process: Process) -> None:
    process.dispatcher.take([job_of("running"), job_of("old", epoch=1), job_of("new", epoch=2)])

    process.dispatcher.drop(lambda job: job.delivery.epoch == 1)
    process.done()
    process.done()

    assert process.submitted == ["running", "new"]
    assert process.effects.log == [("begin", "running"), ("begin", "new")]


def test_an_isolated_job_whose_connection_is_lost_makes_room() -> None:
    process = Process(slots=2)
    process.dispatcher.take([job_of("a"), job_of("boom", crashes=1)])

    process.dispatcher.drop(lambda job: job.name == "boom")
    process.dispatcher.take([job_of("b")])

    assert process.submitted == ["a", "b"]


def test_the_prefetch_follows_the_durations(process: Process) -> None:
    for number in range(8):
        process.dispatcher.take([job_of(str(number))])
        process.done(seconds=0.0001)

    assert process.effects.log[-1] == ("resize", None)
    assert process.prefetch.value == 200


def test_a_smaller_prefetch_is_ordered_though_one_that_crashed_waits_to_run_alone(process: Process) -> None:
    for seconds in (*[0.0001] * 8, *[5.0] * 7):
        process.dispatcher.take([job_of("a")])
        process.done(seconds=seconds)
    process.dispatcher.take([job_of("b")])
    process.dispatcher.take([job_of("boom", crashes=1)])
    process.effects.log.clear()

    process.done(seconds=5.0)

    assert process.prefetch.value == 1
    assert ("resize", None) in process.effects.log
