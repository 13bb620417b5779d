"""Soft limits interrupt the task's function and nothing else; a run beyond its hard limit is answered for once."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import SoftTimeLimitExceeded
from amqp_tasks.worker import _limits
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._limits import (
    OVERDUE_GRACE,
    SOFT_SIGNAL,
    Overdue,
    Timekeeper,
    Watch,
    soft_signal_kept,
    swallowed_noticed,
)
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._records import RecordTable
from amqp_tasks.worker._runs import Runs
from support.fake_deliveries import FakeClock, job_of


class Timers:
    """Timers that run when the test says so, on another thread, as the control thread would."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.planned: list[tuple[float, Callable[[], None]]] = []
        self.overdue: list[Job] = []
        self.records = RecordTable(processes=1, slots=3).of_process(0)
        self.keeper = Timekeeper(
            clock=self.clock,
            call_later=self.call_later,
            records=self.records,
            on_overdue=self.overdue.append,
            runs=Runs(),
        )

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.planned.append((delay, callback))

    def watch(self, soft: float | None, slot: int = 0, *, hard: float | None = None) -> Watch:
        self.records.mark(slot, "a")
        job = job_of("a")
        self.keeper.runs.begin(job)
        return Watch(self.keeper, job, slot, soft=soft, hard=hard)

    def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds
        planned, self.planned = self.planned, []
        for _, callback in planned:
            callback()

    @contextmanager
    def passing(self, seconds: float) -> Iterator[threading.Event]:
        """Let so much time pass when the event is set."""
        begin = threading.Event()

        def body() -> None:
            assert begin.wait(10)
            self.pass_time(seconds)

        thread = threading.Thread(target=body)
        thread.start()
        yield begin
        thread.join(5)
        assert not thread.is_alive()


def guarded(watch: Watch, function: Callable[[], Any]) -> Any:
    try:
        watch.open()
        return function()
    finally:
        watch.close()


def endless() -> None:
    pause = threading.Event()
    for _ in range(3000):
        pause.wait(0.01)
    raise AssertionError("nothing interrupted it")


def busy(seconds: float) -> None:
    end = SYSTEM_CLOCK.monotonic() + seconds
    while SYSTEM_CLOCK.monotonic() < end:
        pass


def in_main_thread(run: Callable[[], None]) -> None:
    run()


def in_a_slot(run: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def body() -> None:
        try:
            run()
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    for failure in failures:
        raise failure


@pytest.fixture(params=[in_main_thread, in_a_slot])
def place(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    found: Callable[[Callable[[], None]], None] = request.param
    return found


@pytest.fixture(autouse=True)
def _signal() -> Iterator[None]:
    with soft_signal_kept():
        yield


def test_a_task_beyond_its_limit_is_interrupted(place: Callable[[Callable[[], None]], None]) -> None:
    timers = Timers()

    def run() -> None:
        def function() -> None:
            begin.set()
            endless()

        with timers.passing(3) as begin, pytest.raises(SoftTimeLimitExceeded) as raised:
            guarded(timers.watch(3), function)
        assert type(raised.value) is SoftTimeLimitExceeded
        assert (raised.value.args, str(raised.value)) == ((3,), "soft time limit of 3 s exceeded")

    place(run)


def test_a_task_that_catches_it_goes_on_and_is_not_interrupted_again(
    place: Callable[[Callable[[], None]], None],
) -> None:
    timers = Timers()

    def run() -> None:
        def function() -> str:
            try:
                begin.set()
                endless()
            except SoftTimeLimitExceeded:
                seen.append("interrupted")
            with timers.passing(3600) as again:
                again.set()
            return "cleaned up"

        seen: list[str] = []
        with timers.passing(3) as begin:
            assert guarded(timers.watch(3), function) == "cleaned up"
        assert seen == ["interrupted"]

    place(run)


def test_a_task_within_its_limit_is_left_alone(place: Callable[[Callable[[], None]], None]) -> None:
    timers = Timers()

    def run() -> None:
        def function() -> str:
            with timers.passing(2.9) as begin:
                begin.set()
            return "in time"

        assert guarded(timers.watch(3), function) == "in time"
        with timers.passing(60) as later:
            later.set()

    place(run)
    assert timers.planned == []


def test_an_interruption_under_way_is_waited_for(
    place: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    timers, returned, interrupt = Timers(), threading.Event(), Watch._interrupt

    def late(watch: Watch) -> None:
        assert returned.wait(10)
        interrupt(watch)

    monkeypatch.setattr(Watch, "_interrupt", late)

    def run() -> None:
        def function() -> None:
            begin.set()
            # Claimed: it has begun, and comes whatever the task does.
            while not watch._is_claimed:
                returned.wait(0.001)
            returned.set()

        watch = timers.watch(3)
        with timers.passing(3) as begin, pytest.raises(SoftTimeLimitExceeded):
            guarded(watch, function)

    place(run)


def test_setting_the_timer_is_not_interrupted(place: Callable[[Callable[[], None]], None]) -> None:
    planned, watches = list[float](), list[Watch]()

    def slowly(delay: float, look: Callable[[], None]) -> None:
        other = threading.Thread(target=watches[0].check, args=(clock.seconds + delay,))
        other.start()
        other.join(5)
        assert not other.is_alive()
        planned.append(delay)

    clock = FakeClock()
    keeper = Timekeeper(
        clock=clock,
        call_later=slowly,
        records=RecordTable(1, 1).of_process(0),
        on_overdue=lambda job: None,
        runs=Runs(),
    )

    def run() -> None:
        watches.append(Watch(keeper, job_of("a"), 0, soft=0.5, hard=None))
        assert guarded(watches[0], lambda: "in time") == "in time"

    place(run)
    assert planned == [0.5]


@contextmanager
def looping() -> Iterator[Loop]:
    loop = Loop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield loop
    finally:
        loop.stop()
        thread.join(5)
        loop.close()


def test_limits_that_pass_at_any_moment_hit_only_the_task(
    place: Callable[[Callable[[], None]], None],
) -> None:
    with looping() as loop:
        keeper = Timekeeper(
            clock=loop.clock,
            call_later=loop.call_later,
            records=RecordTable(1, 1).of_process(0),
            on_overdue=lambda job: None,
            runs=Runs(),
        )

        def run() -> None:
            ends = {"returned": 0, "interrupted": 0}
            for n in range(400):
                seconds = 0.0001 + n / 1e6
                watch = Watch(keeper, job_of("a"), 0, soft=seconds, hard=None)
                try:
                    guarded(watch, partial(busy, seconds))
                    ends["returned"] += 1
                except SoftTimeLimitExceeded:
                    ends["interrupted"] += 1
            assert sum(ends.values()) == 400

        place(run)


def test_one_timer_serves_all_watches() -> None:
    timers = Timers()

    def open_all() -> None:
        for slot, soft in enumerate((0.5, 0.7, 900.0)):
            timers.watch(soft, slot).open()

    in_a_slot(open_all)

    assert [delay for delay, _ in timers.planned] == [0.5]
    for slot in range(3):
        timers.keeper.end(slot)


def test_timers_that_nobody_needs_any_more_do_not_pile_up() -> None:
    timers = Timers()

    def run() -> None:
        for _ in range(1000):
            guarded(timers.watch(3600), int)

    in_a_slot(run)

    assert [delay for delay, _ in timers.planned] == [1.0]
    timers.pass_time(1.0)
    assert timers.planned == []


def test_short_limits_beside_long_ones_do_not_pile_timers_up() -> None:
    clock, planned = FakeClock(), list[tuple[float, Callable[[], None]]]()
    keeper = Timekeeper(
        clock=clock,
        call_later=lambda delay, look: planned.append((clock.seconds + delay, look)),
        records=RecordTable(1, 1).of_process(0),
        on_overdue=lambda job: None,
        runs=Runs(),
    )

    def pass_time(seconds: float) -> None:
        clock.seconds += seconds
        for timer in [timer for timer in planned if timer[0] <= clock.seconds]:
            planned.remove(timer)
            timer[1]()

    def run() -> None:
        def function() -> None:
            for _ in range(100):
                guarded(Watch(keeper, job_of("b"), 1, soft=0.5, hard=None), int)
                pass_time(0.25)

        guarded(Watch(keeper, job_of("a"), 0, soft=3600, hard=None), function)

    in_a_slot(run)

    assert len(planned) <= 3


def test_a_stray_signal_interrupts_nobody() -> None:
    before = signal.getsignal(SOFT_SIGNAL)

    def function() -> str:
        signal.raise_signal(SOFT_SIGNAL)
        return "went on"

    assert guarded(Timers().watch(3), function) == "went on"
    signal.raise_signal(SOFT_SIGNAL)
    assert signal.getsignal(SOFT_SIGNAL) is before


def test_a_run_beyond_its_hard_limit_is_answered_for_by_another() -> None:
    timers = Timers()
    watch = timers.watch(None, hard=5)

    def function() -> None:
        with timers.passing(5) as begin:
            begin.set()

    guarded(watch, function)

    assert [job.name for job in timers.overdue] == ["a"]
    with pytest.raises(Overdue):
        watch.finish()
    assert timers.records.overdue(timers.clock.seconds) == ()
    assert timers.records.overdue(timers.clock.seconds + OVERDUE_GRACE) == ("a",)


def test_a_run_that_ends_in_time_answers_for_itself() -> None:
    timers = Timers()
    watch = timers.watch(None, hard=5)

    assert guarded(watch, lambda: timers.records.overdue(1005)) == ("a",)
    watch.finish()
    watch.check(2000)

    assert timers.overdue == []
    assert timers.records.overdue(2000) == ()


def test_a_task_that_ignores_its_soft_limit_meets_the_hard_one() -> None:
    timers = Timers()
    watch = timers.watch(3, hard=5)

    def function() -> None:
        try:
            with timers.passing(3) as begin:
                begin.set()
                endless()
        except SoftTimeLimitExceeded:
            assert timers.overdue == []
        with timers.passing(2) as again:
            again.set()

    guarded(watch, function)

    assert [job.name for job in timers.overdue] == ["a"]


def in_a_finalizer(work: Callable[[], None]) -> None:
    class Finalized:
        def __del__(self) -> None:
            work()

    Finalized()


def while_collecting(work: Callable[[], None]) -> None:
    def callback(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            work()

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("swallow", [in_a_finalizer, while_collecting])
def test_an_interruption_that_no_exception_gets_out_of_comes_again(
    place: Callable[[Callable[[], None]], None], swallow: Callable[[Callable[[], None]], None]
) -> None:
    timers, swallowed = Timers(), list[int]()

    def run() -> None:
        def lose() -> None:
            try:
                begin.set()
                endless()
            except SoftTimeLimitExceeded:
                swallowed.append(1)
                raise

        def function() -> None:
            swallow(lose)
            assert swallowed == [1]
            with timers.passing(1) as again:
                again.set()
                endless()

        with timers.passing(3) as begin, pytest.raises(SoftTimeLimitExceeded):
            guarded(timers.watch(3), function)

    with swallowed_noticed():
        place(run)
    assert swallowed == [1]


def set_off(begin: threading.Event) -> None:
    begin.set()
    endless()


def test_one_that_is_lost_again_and_again_is_given_up() -> None:
    timers = Timers()

    def function() -> str:
        for _ in range(_limits._MAX_AGAIN + 1):
            with timers.passing(3) as begin:
                in_a_finalizer(partial(set_off, begin))
        with timers.passing(3600) as later:
            later.set()
        return "done"

    with swallowed_noticed():
        assert guarded(timers.watch(3), function) == "done"


def test_what_else_is_dropped_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    error = ValueError("of the task's own")

    def fail() -> None:
        raise error

    with swallowed_noticed():
        guarded(Timers().watch(3), partial(in_a_finalizer, fail))
        in_a_finalizer(fail)

    assert told == [error, error]
