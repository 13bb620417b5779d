"""The table of rate limits that the processes of a node share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App
from amqp_tasks.message import JournalEntry
from amqp_tasks.settings._rate import per_second
from amqp_tasks.worker._journal import JournalState
from amqp_tasks.worker._rates import NOT_NOW, RateLimitChanges, RateLimits, rates_of, token_plans_of
from support.fake_deliveries import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(clock: FakeClock) -> Iterator[RateLimits]:
    made = RateLimits({"slow": 0.5, "free": 0.0}, clock=clock)
    yield made
    made.close()


def forked(check: Callable[[], bool]) -> int:
    """The id of a forked process that exits with 1 when `check` is true there, else with another status."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(1 if check() else 0)
        finally:
            # A child must not return into the test.
            os._exit(99)
    return pid


def status_of(pid: int) -> int:
    """Of a process that ends."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [("10/s", 10.0), ("30/m", 0.5), ("36/h", 0.01), ("5", 5.0), ("0.5/s", 0.5), (2, 2.0), (0, 0.0), (None, 0.0), ("0/m", 0.0)],
)  # fmt: skip
def test_p033_rates_are_read_as_celery_reads_them(rate: float | str | None, expected: float) -> None:
    assert per_second(rate) == pytest.approx(expected)


@pytest.mark.parametrize(
    "rate", ["", "ten/m", "10/d", "10/", "/m", -1, "-1/s", "inf", "nan/s", 1e-12, "1/m/s"]
)
def test_what_is_no_rate_is_refused(rate: float | str) -> None:
    with pytest.raises(ValueError):
        per_second(rate)


def test_c052_c069_a_task_has_its_own_limit_or_that_of_the_setting_or_none() -> None:
    def rates(**settings: Any) -> list[float]:
        app = App("proj", broker=f"memory://{uuid4().hex}/", **settings)
        for name, own in (("own", "30/m"), ("none", 0), ("unset", None)):
            app.task(name=name, rate_limit=own)(print)
        assert app.topology.queue_names  # as a worker asks for first
        limits = rates_of(app, clock=FakeClock())
        found = [limits.rate(name) for name in ("own", "none", "unset")]
        limits.close()
        app.close()
        return found

    assert rates() == [0.5, 0.0, 0.0]
    assert rates(task_default_rate_limit="4/s") == [0.5, 0.0, 4.0]
    assert rates(task_annotations={"unset": {"rate_limit": "2/s"}}) == [0.5, 0.0, 2.0]
    assert rates(task_default_rate_limit="4/s", worker_disable_rate_limits=True) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("own", "of_all", "rate"), [(None, "4/s", 4.0), ("2/s", "4/s", 2.0), ("8/s", "4/s", 4.0), ("8/s", 0, 8.0)]
)
def test_where_all_is_one_process_the_stricter_limit_is_its_own_and_takes_no_tokens(
    own: str | None, of_all: str | int, rate: float
) -> None:
    with App("one", broker="memory://one/") as app:
        app.task(name="act", rate_limit=own, cluster_rate_limit=of_all)(print)
        app.finalize()
        limits = rates_of(app, clock=FakeClock())

        assert (limits.rate("act"), token_plans_of(app)) == (rate, ())
        limits.close()


def test_tasks_with_a_limit_for_all_nodes_have_tokens_unless_limits_are_switched_off() -> None:
    def plans(**settings: Any) -> list[tuple[str, int, int]]:
        with App("plans", broker="amqp://nowhere/", **settings) as app:
            for name, rate in (("a", "20/s"), ("b", None), ("c", 0)):
                app.task(name=name, rate_limit="1/s", cluster_rate_limit=rate)(print)
            app.finalize()
            return [(plan.task_name, plan.count, plan.interval_ms) for plan in token_plans_of(app)]

    assert plans() == [("a", 2, 100)]
    assert plans(task_annotations={"b": {"cluster_rate_limit": "1/s"}}) == [("a", 2, 100), ("b", 1, 1000)]
    assert plans(worker_disable_rate_limits=True) == []


def test_a_start_in_one_process_counts_in_all(limits: RateLimits, clock: FakeClock) -> None:
    assert status_of(forked(lambda: limits.start("slow", clock.seconds) == 0.0)) == 1

    assert limits.start("slow", clock.seconds) == 2.0
    assert limits.start("free", clock.seconds) == 0.0
    clock.seconds += 2.0
    assert limits.start("slow", clock.seconds) == 0.0


def test_a_limit_that_is_changed_holds_for_all_processes_that_were_there_before(limits: RateLimits) -> None:
    told, tell = os.pipe()
    pid = forked(lambda: bool(os.read(told, 1)) and (limits.rate("free"), limits.rate("slow")) == (4.0, 0.0))
    limits.change("free", 4.0)
    limits.change("slow", 0.0)
    os.write(tell, b"x")

    assert status_of(pid) == 1
    was_any = limits.is_any
    limits.change("free", 0.0)
    assert (was_any, limits.is_any) == (True, False)
    for end in (told, tell):
        os.close(end)


def test_what_the_journal_says_of_limits_counts(limits: RateLimits) -> None:
    state = JournalState((RateLimitChanges(limits),))

    passed_on = state.learn([_said("slow", "3/s"), _said("free", 2), _said("nobody", 1)])

    # The table is shared: no process has to be told.
    assert passed_on == []
    assert (limits.rate("slow"), limits.rate("free"), limits.rate("nobody")) == (3.0, 2.0, 0.0)
    state.learn([_said("slow", None), _said("free", "0")])
    assert (limits.rate("slow"), limits.rate("free")) == (0.5, 0.0)


@pytest.mark.parametrize("facts", [{}, {"task": "slow"} | {"rate": "fast"}, {"task": 1, "rate": 1}, {"task": "slow", "rate": [1]}])  # fmt: skip
def test_an_entry_that_says_no_limit_changes_nothing(limits: RateLimits, facts: dict[str, Any]) -> None:
    entry = JournalEntry(kind="rate_limit", id="e", time=0.0, sender="test", facts=facts)

    JournalState((RateLimitChanges(limits),)).learn([entry])

    assert limits.rate("slow") == 0.5


def _said(task_name: str, rate: float | str | None) -> JournalEntry:
    facts = {"task": task_name, "rate": rate}
    return JournalEntry(kind="rate_limit", id="e", time=0.0, sender="test", facts=facts)


def test_a_process_that_hangs_or_dies_with_the_lock_hangs_nobody(
    limits: RateLimits, clock: FakeClock
) -> None:
    locked, lock = os.pipe()
    end, ends = os.pipe()

    def take_and_hang() -> bool:
        fcntl.lockf(limits._fd, fcntl.LOCK_EX)
        os.write(lock, b"x")
        return not os.read(end, 1)

    pid = forked(take_and_hang)
    os.read(locked, 1)

    assert limits.start("slow", clock.seconds) == NOT_NOW
    with pytest.raises(TimeoutError, match="slow"):
        limits.change("slow", 1.0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)

    assert limits.start("slow", clock.seconds) == 0.0
    for descriptor in (locked, lock, end, ends):
        os.close(descriptor)
