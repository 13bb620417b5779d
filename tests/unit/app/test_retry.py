"""Retries decided in the task: direct calls, eager runs, limits, times, arguments, hooks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqp_tasks import App, Task
from amqp_tasks.app._retry import backoff
from amqp_tasks.errors import (
    ConfigurationError,
    Ignore,
    MaxRetriesExceededError,
    Reject,
    Retry,
    Snooze,
    TaskPredicate,
)

AnyTask = Task[..., Any]
LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 - naive, as users write it


@pytest.fixture
def app() -> Iterator[App]:
    with App("retrying", broker="memory://") as made:
        yield made


class Told(Task[..., Any]):
    """Notes what its hooks are told."""

    log: list[tuple[Any, ...]] = []  # noqa: RUF012 - each test sets its own

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.log.append(("before_start", task_id, args, kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.log.append(("on_success", retval, task_id, args, kwargs))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(("on_failure", repr(exc), task_id, args, kwargs, einfo.type.__name__))

    def on_retry(self, exc: Exception | None, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.log.append(("on_retry", repr(exc), task_id, args, kwargs, einfo.type.__name__))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        self.log.append(("after_return", str(status), einfo is None, self.request.retries))


# -- direct calls


def test_a_direct_call_raises_the_reason(app: App) -> None:
    error = ValueError("no")

    @app.task(bind=True)
    def fail(self: AnyTask, exc: Exception | None) -> None:
        try:
            raise KeyError("original")
        except KeyError:
            self.retry(exc=exc)

    with pytest.raises(ValueError, match="no") as caught:
        fail(error)
    assert caught.value is error
    assert isinstance(error.__cause__, KeyError)
    with pytest.raises(Retry, match="can be retried") as without:
        fail(None)
    assert isinstance(without.value.__cause__, KeyError)


def test_a_direct_call_is_not_retried_by_itself(app: App) -> None:
    runs: list[int] = []

    @app.task(autoretry_for=(ValueError,))
    def fail() -> None:
        runs.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert runs == [1]


# -- eager runs


def test_an_eager_task_is_retried_at_once_under_the_same_id(app: App) -> None:
    seen: list[tuple[str | None, int]] = []

    @app.task(bind=True)
    def third_time(self: AnyTask, x: int) -> int:
        seen.append((self.request.id, self.request.retries))
        if self.request.retries < 2:
            raise self.retry(countdown=1000)
        return x

    result = third_time.apply((7,), task_id="one")

    assert (result.get(), result.id, result.retries) == (7, "one", 2)
    assert seen == [("one", 0), ("one", 1), ("one", 2)]


def test_an_eager_retry_brings_its_headers_along(app: App) -> None:
    @app.task(bind=True)
    def second_time(self: AnyTask) -> dict[str, Any]:
        if not self.request.retries:
            self.retry(headers={"new": 5}, shadow="other")
        return self.request.headers

    assert second_time.apply(headers={"old": 1}).get() == {"old": 1, "new": 5}


@pytest.mark.parametrize("exc", [None, ValueError("the reason")])
def test_a_task_retried_too_often_fails(app: App, exc: Exception | None) -> None:
    runs: list[int] = []

    @app.task(bind=True, max_retries=2)
    def fail(self: AnyTask) -> None:
        runs.append(self.request.retries)
        self.retry(exc=exc)

    result = fail.apply(())

    assert (runs, result.state) == ([0, 1, 2], "FAILURE")
    assert isinstance(result.result, MaxRetriesExceededError if exc is None else ValueError)


def test_the_limit_of_one_execution_wins_over_the_tasks(app: App) -> None:
    runs: list[int] = []

    @app.task(bind=True, max_retries=None)
    def fail(self: AnyTask, limit: int | None) -> None:
        runs.append(self.request.retries)
        self.retry(max_retries=limit if limit is not None or len(runs) < 6 else 0)

    assert fail.apply((1,)).state == "FAILURE"
    assert runs == [0, 1]
    runs.clear()
    assert fail.apply((None,)).state == "FAILURE"
    assert runs == [0, 1, 2, 3, 4, 5]


def test_an_eager_call_that_is_to_raise_raises_the_retry(app: App) -> None:
    @app.task(bind=True)
    def again(self: AnyTask) -> None:
        self.retry(exc=ValueError("no"))

    with pytest.raises(Retry) as caught:
        again.apply((), throw=True)
    assert caught.value.is_eager


def test_without_throw_the_task_goes_on_and_its_outcome_stands(app: App) -> None:
    runs: list[int] = []

    @app.task(bind=True)
    def goes_on(self: AnyTask) -> str:
        runs.append(1)
        return str(self.retry(throw=False, countdown=5))

    assert goes_on.apply(()).get() == "Retry in 5s"
    assert runs == [1]


def test_eager_snooze_ignore_and_reject(app: App) -> None:
    """Rows B015, B016."""
    seen: list[int] = []

    @app.task(bind=True)
    def put_off(self: AnyTask) -> int:
        seen.append(self.request.retries)
        if len(seen) < 3:
            raise Snooze(60)
        return len(seen)

    @app.task
    def say(kind: str) -> None:
        raise {"ignore": Ignore(), "reject": Reject("bad")}[kind]

    assert put_off.apply(()).get() == 3
    assert seen == [0, 0, 0]
    assert say.apply(("ignore",)).state == "IGNORED"
    assert say.apply(("reject",)).state == "REJECTED"


# -- by itself


@pytest.mark.parametrize(
    ("options", "exc", "runs"),
    [
        ({"autoretry_for": (ValueError,)}, ValueError("a"), 4),
        ({"autoretry_for": (ValueError,)}, KeyError("b"), 1),
        ({"autoretry_for": (LookupError,), "dont_autoretry_for": [KeyError]}, KeyError("c"), 1),
        ({"autoretry_for": (LookupError,), "dont_autoretry_for": [KeyError]}, IndexError("d"), 4),
        ({"autoretry_for": (ValueError,), "retry_kwargs": {"max_retries": 1}}, ValueError("e"), 2),
        ({"autoretry_for": (ValueError,), "max_retries": 6, "retry_backoff": 2}, ValueError("f"), 7),
        ({"autoretry_for": (Exception,)}, Ignore(), 1),
        ({"autoretry_for": (Exception,)}, Reject("g"), 1),
    ],
)
def test_a_task_is_retried_for_what_it_names(
    app: App, options: dict[str, Any], exc: Exception, runs: int
) -> None:
    seen: list[int] = []

    def fail() -> None:
        seen.append(1)
        raise exc

    decorate: Any = app.task
    result = decorate(**options)(fail).apply(())

    assert len(seen) == runs
    if not isinstance(exc, TaskPredicate):
        assert result.result is exc


def test_the_limit_that_a_task_gave_holds_for_the_retries_by_itself(app: App) -> None:
    runs: list[int] = []

    @app.task(bind=True, autoretry_for=(ValueError,), max_retries=9)
    def fail(self: AnyTask) -> None:
        runs.append(1)
        self.retry(exc=ValueError("no"), max_retries=2)

    assert fail.apply(()).state == "FAILURE"
    assert len(runs) == 3


def test_the_pause_doubles_up_to_the_maximum_and_jitter_draws_below_it() -> None:
    assert [backoff(3, n, 50, jitter=False) for n in range(6)] == [3, 6, 12, 24, 48, 50]
    assert backoff(True, 10**9, 600, jitter=False) == 600
    assert backoff(0.5, 0, 600, jitter=False) == 1
    drawn = {backoff(4, 1, 600, jitter=True) for _ in range(2000)}
    assert drawn == set(range(9))


@pytest.mark.parametrize(
    "options",
    [
        {"autoretry_for": ValueError},
        {"autoretry_for": ("ValueError",)},
        {"max_retries": "3"},
        {"retry_kwargs": 5},
        {"retry_backoff": "yes"},
    ],
)
def test_options_of_retries_are_checked(app: App, options: dict[str, Any]) -> None:
    decorate: Any = app.task

    with pytest.raises(ConfigurationError):
        decorate(**options)(lambda: None)


# -- when, and with what


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, 180.0),
        ({"countdown": 5}, 5.0),
        ({"countdown": 0}, 0.0),
        ({"countdown": -3}, 0.0),
        ({"eta": LONG_AGO}, 0.0),
        ({"eta": LONG_AGO, "countdown": 7}, 7.0),
    ],
)
def test_when_the_next_run_is(app: App, given: dict[str, Any], wanted: float) -> None:
    assert _again(app, **given).delay == wanted


def test_the_next_run_is_when_the_eta_says(app: App) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)

    delay = _again(app, eta=eta).delay

    assert (eta - datetime.now(UTC)).total_seconds() <= delay <= 3600


def _again(app: App, **given: Any) -> Any:
    """What a retry leads to."""
    found: list[Any] = []

    @app.task(bind=True, name=f"t{len(app.tasks)}")
    def ask(self: AnyTask, x: int, y: int = 0) -> None:
        self.retry(throw=False, **given)
        found.append(self.frame)

    result = ask.apply((1,), {"y": 2})
    if result.failed():
        raise result.result  # type: ignore[misc]  # it is an exception
    return found[0].again


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"countdown": "5"}, "number of seconds"),
        ({"countdown": float("nan")}, "number of seconds"),
        ({"countdown": 1e300}, "a century"),
        ({"quue": "x"}, "did you mean 'queue'"),
        ({"serializer": "yaml"}, "option of a retry"),
        ({"headers": {"id": "x"}}, "belongs to the task protocol"),
        ({"args": ("text",)}, "expected int"),
    ],
)
def test_a_retry_that_cannot_be_fails_the_task(app: App, given: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigurationError, ValueError, TypeError), match=said):
        _again(app, **given)


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        ({"args": (5,)}, (5,), {"y": 2}),
        ({"args": (5, 6)}, (5, 6), {}),
        ({"kwargs": {"y": 9}}, (1,), {"y": 9}),
        ({"kwargs": {"x": 8}}, (8,), {"y": 2}),
        ({"args": (3,), "kwargs": {}}, (3,), {}),
    ],
)
def test_new_arguments_replace_those_they_name(
    app: App, given: dict[str, Any], args: Any, kwargs: Any
) -> None:
    again = _again(app, countdown=0, **given)

    assert (tuple(again.args), dict(again.kwargs)) == (args, kwargs)


def test_options_of_a_retry_become_headers(app: App) -> None:
    at = datetime(2090, 1, 1, tzinfo=UTC)
    again = _again(
        app,
        countdown=0,
        expires=at,
        time_limit=5,
        shadow="s",
        ignore_result=True,
        headers={"a": 1},
        priority=4,
    )

    assert again.priority == 4
    assert again.changes == {
        "a": 1,
        "shadow": "s",
        "ignore_result": True,
        "timelimit": [5, None],
        "expires": at.isoformat(),
    }


# -- hooks


def test_hooks_are_told_of_each_run_in_order(app: App) -> None:
    class Noting(Told):
        log: list[tuple[Any, ...]] = []  # noqa: RUF012 - as above

    @app.task(bind=True, base=Noting)
    def once_more(self: AnyTask, x: int) -> int:
        if not self.request.retries:
            self.retry(exc=ValueError("no"), countdown=0)
        return x

    once_more.apply((7,), task_id="i")

    about: tuple[Any, ...] = ("i", (7,), {})
    assert Noting.log == [
        ("before_start", *about),
        ("on_retry", "ValueError('no')", *about, "Retry"),
        ("after_return", "RETRY", False, 0),
        ("before_start", *about),
        ("on_success", 7, *about),
        ("after_return", "SUCCESS", True, 1),
    ]


def test_hooks_are_told_of_a_failure(app: App) -> None:
    class Noting(Told):
        log: list[tuple[Any, ...]] = []  # noqa: RUF012 - as above

    @app.task(base=Noting)
    def fail() -> None:
        raise ValueError("no")

    fail.apply((), task_id="i")

    assert Noting.log[1:] == [
        ("on_failure", "ValueError('no')", "i", (), {}, "ValueError"),
        ("after_return", "FAILURE", False, 0),
    ]


@pytest.mark.parametrize("as_option", [True, False])
def test_on_dead_is_told_of_every_end_without_success_and_of_no_other(app: App, as_option: bool) -> None:
    """Row B041."""
    log: list[str] = []

    def tell(exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        log.append(f"{task_id}: {exc!r} {args} {einfo.exception is exc}")

    class Mourned(Task[..., Any]):
        def on_dead(self, *about: Any) -> None:
            assert not as_option
            tell(*about)

    options: dict[str, Any] = {"on_dead": tell} if as_option else {}

    @app.task(base=Mourned, bind=True, max_retries=1, **options)
    def end(self: AnyTask, exc: Any) -> None:
        if exc == "retry":
            self.retry(exc=KeyError("gone"), countdown=0)
        if exc == "both":
            self.retry(throw=False, countdown=0)
            raise ValueError("but it runs again")
        if exc is not None:
            raise exc

    for exc in (None, Ignore(), Reject("later", requeue=True), "both"):
        end.apply((exc,))
    assert log == []

    end.apply((ValueError("no"),), task_id="failed")
    end.apply(("retry",), task_id="retried")
    end.apply((Reject("bad"),), task_id="rejected")

    assert log[0] == "failed: ValueError('no') (ValueError('no'),) True"
    assert log[1] == "retried: KeyError('gone') ('retry',) True"
    assert log[2].startswith("rejected: TaskError('rejected: bad')")
    assert len(log) == 3


def test_an_on_dead_that_cannot_be_called_is_refused(app: App) -> None:
    with pytest.raises(ConfigurationError, match="on_dead must be a function of"):
        app.task(on_dead="proj.tell")(lambda: None)  # type: ignore[call-overload]


def test_what_before_start_raises_is_the_outcome(app: App) -> None:
    class Guarded(Task[..., Any]):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            raise PermissionError("not today")

    ran: list[int] = []

    @app.task(base=Guarded)
    def never() -> None:
        ran.append(1)

    assert isinstance(never.apply(()).result, PermissionError)
    assert not ran


def test_an_eager_caller_sees_the_error_of_a_hook(app: App) -> None:
    class Bad(Task[..., Any]):
        async def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # type: ignore[override]
            raise OSError("hook")

    with pytest.raises(OSError, match="hook"):
        app.task(base=Bad)(lambda: 1).apply(())
