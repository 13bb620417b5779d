"""Plans of retries: their numbers, what they mean for a task, and what is refused. Row B039 (and the steps of B035)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqp_tasks import App, Backoff, RetryPlan, Steps, Task
from amqp_tasks.app._retry import Again
from amqp_tasks.errors import ConfigurationError, Ignore, MaxRetriesExceededError, Retry

AnyTask = Task[..., Any]


@pytest.fixture
def app() -> Iterator[App]:
    with App("planning", broker="memory://") as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each retry of the test waits for."""
    seen: list[float] = []
    made = Again.__init__

    def noting(self: Again, **facts: Any) -> None:
        seen.append(facts["delay"])
        made(self, **facts)

    monkeypatch.setattr(Again, "__init__", noting)
    return seen


def test_the_first_retries_are_at_once_and_the_others_follow_the_pauses() -> None:
    plan = RetryPlan(fast=2, then=Backoff(first=10, factor=3, maximum=100, jitter=False, times=4))

    assert [plan.pause(retries) for retries in range(7)] == [0, 0, 10, 30, 90, 100, 100]
    assert plan.limit == 6


def test_jitter_draws_between_nothing_and_the_whole_pause() -> None:
    drawn = [Backoff(first=8).pause(1) for _ in range(200)]

    assert 0 <= min(drawn) < 4
    assert 12 < max(drawn) <= 16


def test_growth_ends_at_the_maximum_however_many_retries_there_were() -> None:
    assert Backoff(factor=1e6, maximum=50, jitter=False, times=None).pause(10**6) == 50


@pytest.mark.parametrize(
    ("plan", "limit"),
    [
        (RetryPlan(), 3),
        (RetryPlan(fast=4, then=None), 4),
        (RetryPlan(then=Steps(1, 2)), 2),
        (RetryPlan(fast=1, then=Backoff(times=None)), None),
    ],
)
def test_the_limit_is_that_of_both_parts(plan: RetryPlan, limit: int | None) -> None:
    assert plan.limit == limit


def test_a_plan_is_a_value() -> None:
    plan = RetryPlan(fast=1, then=Steps(1, 2), on=(OSError,))

    assert pickle.loads(pickle.dumps(plan)) == plan == RetryPlan(fast=1, then=Steps(1, 2), on=OSError)  # type: ignore[arg-type]
    assert hash(plan) == hash(RetryPlan(fast=1, then=Steps(1, 2), on=(OSError,)))


def test_a_task_is_retried_by_its_plan_and_then_fails_with_its_own_error(
    app: App, pauses: list[float]
) -> None:
    runs: list[int] = []

    @app.task(bind=True, retry_plan=RetryPlan(fast=2, then=Steps(30, 60)))
    def fail(self: AnyTask) -> None:
        runs.append(self.request.retries)
        raise ValueError("no")

    result = fail.apply(())

    assert runs == [0, 1, 2, 3, 4]
    assert pauses == [0, 0, 30, 60]
    assert repr(result.result) == "ValueError('no')"


def test_only_what_a_plan_covers_is_retried(app: App, pauses: list[float]) -> None:
    @app.task(retry_plan=RetryPlan(fast=1, then=None, on=(OSError,), not_on=(FileNotFoundError,)))
    def fail(kind: str) -> None:
        raise {"os": OSError, "file": FileNotFoundError, "value": ValueError, "ignore": Ignore}[kind]

    for kind in ("file", "value", "ignore"):
        fail.apply((kind,))
        assert pauses == []
    fail.apply(("os",))
    assert pauses == [0]


def test_a_retry_without_a_time_takes_the_pause_and_the_limit_of_the_plan(
    app: App, pauses: list[float]
) -> None:
    @app.task(bind=True, retry_plan=RetryPlan(then=Steps(5)))
    def ask(self: AnyTask) -> None:
        self.retry()

    result = ask.apply(())

    assert pauses == [5]
    assert isinstance(result.result, MaxRetriesExceededError)


def test_a_time_and_a_limit_given_to_retry_win_over_the_plan(app: App, pauses: list[float]) -> None:
    @app.task(bind=True, retry_plan=RetryPlan(then=Steps(5)))
    def ask(self: AnyTask) -> None:
        self.retry(countdown=7, max_retries=3)

    ask.apply(())

    assert pauses == [7, 7, 7]


def test_a_decorators_plan_wins_over_the_options_of_the_class(app: App, pauses: list[float]) -> None:
    class Usual(Task[..., Any]):
        autoretry_for = (KeyError,)
        max_retries = 9

    @app.task(base=Usual, retry_plan=RetryPlan(then=Steps(5)))
    def fail() -> None:
        raise ValueError

    fail.apply(())

    assert pauses == [5]


def _in_decorator(app: App) -> None:
    app.task(retry_plan=RetryPlan(), max_retries=5)(lambda: None)


def _in_class(app: App) -> None:
    class Both(Task[..., Any]):
        retry_plan = RetryPlan()
        retry_backoff = True

    app.task(base=Both)(lambda: None)


def _over_the_class(app: App) -> None:
    class Planned(Task[..., Any]):
        retry_plan = RetryPlan()

    app.task(base=Planned, autoretry_for=(OSError,))(lambda: None)


@pytest.mark.parametrize("declare", [_in_decorator, _in_class, _over_the_class])
def test_a_plan_together_with_what_it_replaces_is_refused(app: App, declare: Callable[[App], None]) -> None:
    with pytest.raises(ConfigurationError, match="retry_plan stands in place of"):
        declare(app)


def test_the_option_retry_is_refused_with_the_name_that_is_meant(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"write retry_plan=RetryPlan\("):
        app.task(retry=RetryPlan())(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="must be a RetryPlan"):
        app.task(retry_plan=Retry())(lambda: None)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RetryPlan(fast=-1), "RetryPlan.fast must be a whole number from 0, got -1"),
        (lambda: RetryPlan(fast=True), "RetryPlan.fast must be a whole number from 0, got True"),
        (lambda: RetryPlan(then=5), "RetryPlan.then must be a Backoff, Steps or None, got 5"),  # type: ignore[arg-type]
        (lambda: RetryPlan(on=("OSError",)), "RetryPlan.on takes exception classes, got 'OSError'"),  # type: ignore[arg-type]
        (lambda: RetryPlan(not_on=(KeyboardInterrupt,)), "RetryPlan.not_on takes exception classes"),  # type: ignore[arg-type]
        (lambda: RetryPlan(on=None), "RetryPlan.on takes exception classes, got None"),  # type: ignore[arg-type]
        (lambda: Backoff(first=-1), "Backoff.first must be a number of seconds from 0"),
        (lambda: Backoff(maximum=float("inf")), "Backoff.maximum must be a number of seconds"),
        (lambda: Backoff(factor=0.5), "Backoff.factor must be a number of at least 1, got 0.5"),
        (lambda: Backoff(times=-1), "Backoff.times must be a whole number from 0, or None for no end"),
        (Steps, "Steps needs at least one pause"),
        (lambda: Steps(1, float("nan")), "each of Steps must be a number of seconds from 0"),
    ],
)
def test_a_plan_that_cannot_be_says_what_would(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert said in str(caught.value)
