"""Running a task again: what `Task.retry` decides, and when; what is sent is the worker's business.

Pure decisions but for one thing: a retry to another queue has that queue declared, as a call would.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from amqp_tasks.app._options import check_retry_options
from amqp_tasks.clock import MAX_SECONDS
from amqp_tasks.errors import ConfigurationError, MaxRetriesExceededError, Retry, Snooze, TaskPredicate
from amqp_tasks.message._headers import check_user_headers

if TYPE_CHECKING:
    from amqp_tasks.app._destination import Destination
    from amqp_tasks.app._request import Frame, Request
    from amqp_tasks.app._task import Task

__all__ = ("Again", "autoretry", "backoff", "retry", "snoozed", "wanted_by")

# More doublings than any delay has seconds; a header that says how often must not make numbers without end.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The run that is to follow the present one.

    Attributes:
        delay: seconds until then; 0 is at once.
        is_counted: it is a retry, and no snooze.
        args, kwargs: as they are sent; both None to send the body as it came.
        labels: what logs show of new arguments.
        destination: where to; None for the queue the message came from.
        priority: None keeps it.
        changes: headers that change.
    """

    delay: float
    is_counted: bool = True
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    labels: tuple[str, str] | None = None
    destination: Destination | None = None
    priority: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])


def retry(
    task: Task[..., Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    exc: Exception | None,
    throw: bool,
    eta: datetime | None,
    countdown: float | None,
    max_retries: int | None,
    options: Mapping[str, Any],
) -> Retry:
    """See `Task.retry`."""
    frame = task.frame
    if frame is None or frame.request.called_directly:
        _raise(exc or Retry("Task can be retried"))
    if frame.is_over:
        raise RuntimeError(f"task {task.name!r} has ended: a hook cannot retry it")
    check_retry_options(options)
    if max_retries is not None:
        frame.max_retries = max_retries
    request, limit = frame.request, _limit(task) if max_retries is None else max_retries
    if args is not None or kwargs is not None:
        args, kwargs = _arguments(task, request, args, kwargs)
    if limit is not None and request.retries >= limit:
        _give_up(task, request, exc, args, kwargs)
    if countdown is None and not eta:
        countdown = _usual_pause(task, request.retries)
    signal = Retry(exc=exc, when=countdown if countdown is not None else eta, is_eager=request.is_eager)
    # The last one counts: there cannot be two next runs under one id.
    frame.again = _again(task, args, kwargs, _delay(task, eta, countdown), options)
    if throw:
        raise signal
    return signal


def wanted_by(frame: Frame, signal: Retry) -> None:
    """Have a `Retry` that the task made itself lead to a run, too.

    Raises:
        Exception: as `retry`.
    """
    if frame.again is not None:
        return
    given: dict[str, Any] = {"eta" if isinstance(signal.when, datetime) else "countdown": signal.when}
    frame.task.retry(exc=signal.exc, throw=False, **given)


def autoretry(frame: Frame, exc: Exception) -> None:
    """Retry for an exception, if the task's options say so; else return.

    Raises:
        Retry: it is retried.
        Exception: as `retry`.
    """
    task = frame.task
    if task.retry_plan is not None:
        if task.retry_plan.covers(exc) and not isinstance(exc, TaskPredicate):
            task.retry(exc=exc, max_retries=frame.max_retries)
        return
    if isinstance(exc, (TaskPredicate, *task.dont_autoretry_for)) or not isinstance(exc, task.autoretry_for):
        return
    given = dict(task.retry_kwargs)
    if task.retry_backoff:
        given["countdown"] = backoff(
            task.retry_backoff, frame.request.retries, task.retry_backoff_max, jitter=task.retry_jitter
        )
    if frame.max_retries is not None:
        given["max_retries"] = frame.max_retries
    task.retry(exc=exc, **given)


def _limit(task: Task[..., Any]) -> int | None:
    return task.max_retries if task.retry_plan is None else task.retry_plan.limit


def _usual_pause(task: Task[..., Any], retries: int) -> float:
    return task.default_retry_delay if task.retry_plan is None else task.retry_plan.pause(retries)


def backoff(factor: float, retries: int, maximum: float, *, jitter: bool) -> int:
    """Seconds until the retry that follows `retries` others, as Celery reckons them.

    >>> [backoff(True, retries, 600, jitter=False) for retries in (0, 1, 2, 10)]
    [1, 2, 4, 600]
    >>> backoff(5, 1, 600, jitter=True) in range(11)
    True
    """
    seconds = min(int(maximum), int(max(1.0, factor)) * 2 ** min(retries, _MAX_DOUBLINGS))
    return max(0, random.randrange(seconds + 1) if jitter else seconds)  # noqa: S311 - no secret


def snoozed(signal: Snooze) -> Again:
    """The run that a snooze leads to.

    Raises:
        ConfigurationError: its seconds are no number.
    """
    return Again(delay=_seconds(signal.seconds), is_counted=False)


def _raise(exc: Exception) -> NoReturn:
    """Raise it, from the exception that is being handled, if that is another one."""
    handled = sys.exception()
    if handled is None or handled is exc:
        raise exc
    raise exc from handled


def _give_up(
    task: Task[..., Any],
    request: Request,
    exc: Exception | None,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> NoReturn:
    if exc is not None:
        _raise(exc)
    error = MaxRetriesExceededError(
        f"Can't retry {task.name}[{request.id}]: it has been retried {request.retries} times"
    )
    error.task_args = tuple(request.args if args is None else args)
    error.task_kwargs = dict(request.kwargs if kwargs is None else kwargs)
    raise error


def _arguments(
    task: Task[..., Any], request: Request, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """New arguments, beside those of the present run that they do not replace."""
    if kwargs is None:
        names = _positional_names(task)
        replaced = names[: len(args or ())]
        return args or (), {name: value for name, value in request.kwargs.items() if name not in replaced}
    if args is not None:
        return args, kwargs
    kept, rest = list(request.args), dict(kwargs)
    for position, name in enumerate(_positional_names(task)[: len(kept)]):
        if name in rest:
            kept[position] = rest.pop(name)
    return kept, {**request.kwargs, **rest}


def _positional_names(task: Task[..., Any]) -> list[str]:
    """Names of the parameters that may be given by position and by name; '' for those by position only."""
    return [
        "" if parameter.kind is inspect.Parameter.POSITIONAL_ONLY else parameter.name
        for parameter in task.parameters.positional
    ]


def _delay(task: Task[..., Any], eta: datetime | None, countdown: float | None) -> float:
    if countdown or eta is None:
        return _seconds(countdown or 0)
    at = eta if eta.tzinfo is not None else eta.replace(tzinfo=task.app.timezone)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _seconds(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value <= MAX_SECONDS:
        raise ConfigurationError(
            f"the time until the next run must be a number of seconds (at most a century), got {value!r:.60}"
        )
    return max(0.0, float(value))


def _again(
    task: Task[..., Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    delay: float,
    options: Mapping[str, Any],
) -> Again:
    labels = None
    if args is not None and kwargs is not None:
        labels = task.parameters.labels(args, kwargs, task.sensitive)
        args, kwargs = task.parameters.dump(args, kwargs)
    queue_name = options.get("queue")
    is_eager = task.request.is_eager
    return Again(
        delay=delay,
        args=args,
        kwargs=kwargs,
        labels=labels,
        destination=None if queue_name is None or is_eager else task.app.calls.destination_of(queue_name),
        priority=options.get("priority"),
        changes=_changes(task, options),
    )


def _changes(task: Task[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = dict(options.get("headers") or {})
    check_user_headers(changes)
    for name in ("shadow", "ignore_result"):
        if options.get(name) is not None:
            changes[name] = options[name]
    limits = (options.get("time_limit"), options.get("soft_time_limit"))
    if limits != (None, None):
        present = task.request.timelimit
        changes["timelimit"] = [
            new if new is not None else old for new, old in zip(limits, present, strict=True)
        ]
    expires = options.get("expires")
    if expires is not None:
        changes["expires"] = _expiry(task, expires).isoformat()
    return changes


def _expiry(task: Task[..., Any], expires: float | timedelta | datetime) -> datetime:
    if isinstance(expires, datetime):
        return expires if expires.tzinfo is not None else expires.replace(tzinfo=task.app.timezone)
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return datetime.now(UTC) + timedelta(seconds=_seconds(seconds))
