"""Options of a task and of a call: their names, what they may be, and one place that refuses the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple, TypedDict

from amqp_tasks.app._retry_plan import RetryPlan
from amqp_tasks.clock import MAX_SECONDS
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.settings._rate import CLUSTER_RATE_FORM, RATE_FORM, is_cluster_rate, per_second

__all__ = (
    "CALL_OPTIONS",
    "CallOptions",
    "RetryPolicy",
    "TaskOptions",
    "check_call_options",
    "check_destination",
    "check_message_options",
    "check_names",
    "check_retry_options",
    "check_retry_plan",
    "check_task_options",
    "check_task_values",
    "start_of",
)


class RetryPolicy(TypedDict, total=False):
    """How a refused publish is tried again: numbers in seconds, see `task_publish_retry_policy`."""

    max_retries: int | None
    interval_start: float
    interval_step: float
    interval_max: float


class CallOptions(TypedDict, total=False):
    """What one call may set; everything else comes from the task, its route and the settings, in this order.

    `queue` or `exchange` with `routing_key` say where the message goes; a queue that is not configured is created
    when `task_create_missing_queues` allows. `countdown` is seconds from now and `eta` a datetime before which the
    task does not start; give one of them. `expires` is seconds from now or a datetime (naive: the app's
    timezone). `timeout` limits the publish as a whole. `confirm=False` returns when the message was handed to the
    I/O thread; a failed publish then surfaces in `AsyncResult.get()`. `add_to_parent=False` leaves a call made in a
    task out of that task's `children`.

    `argsrepr` and `kwargsrepr` are what logs, events and dead letters show in place of the arguments.

    `link` is a signature, or several, to be run with the result; `link_error` when the task fails. `stamps` are names with
    values that stay with the task, see `Signature.stamp`.

    Calls of a task with one `idempotency_key` are carried out once: the others get the outcome of the first. Workers need
    `task_idempotency_store` for that.

    `message_id`, `app_id`, `type`, `user_id` and `timestamp` (seconds since 1970 or a datetime) are AMQP properties that
    are sent as they are; a `message_id` that is missing is made where there is a `task_id`, for an id may be used again. RabbitMQ checks `user_id`: it must be the user of the connection.
    """

    task_id: str
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    serializer: str | None
    compression: str | None
    headers: Mapping[str, Any] | None
    countdown: float | None
    eta: datetime | None
    expires: float | datetime | timedelta | None
    shadow: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    reply_to: str | None
    delivery_mode: int | None
    retry: bool
    retry_policy: RetryPolicy | None
    timeout: float | None
    confirm: bool
    add_to_parent: bool
    message_id: str | None
    app_id: str | None
    type: str | None
    user_id: str | None
    timestamp: int | datetime | None
    link: Any
    link_error: Any
    idempotency_key: str | None
    stamps: Mapping[str, Any]


class TaskOptions(TypedDict, total=False):
    """What `@app.task(...)` may set beside `bind` and `base`; see the attributes of `Task`."""

    name: str | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    serializer: str | None
    compression: str | None
    delivery_mode: int | None
    expires: float | None
    ignore_result: bool | None
    store_errors_even_if_ignored: bool | None
    store_eager_result: bool | None
    acks_late: bool | None
    acks_on_failure: bool | None
    acks_on_timeout: bool | None
    track_started: bool | None
    throws: Iterable[type[Exception]]
    time_limit: float | None
    soft_time_limit: float | None
    rate_limit: float | str | None
    cluster_rate_limit: float | str | None
    typing: bool
    pydantic: bool
    pydantic_strict: bool
    pydantic_context: Mapping[str, Any] | None
    pydantic_dump_kwargs: Mapping[str, Any] | None
    sensitive: Iterable[str]
    resultrepr_maxsize: int
    trail: bool
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: Iterable[type[Exception]]
    dont_autoretry_for: Iterable[type[Exception]]
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    retry_plan: RetryPlan | None
    on_dead: Callable[..., object] | None
    idempotent: bool


CALL_OPTIONS = frozenset(CallOptions.__annotations__)
RETRY_OPTIONS = frozenset(
    {
        "queue", "priority", "headers", "expires", "shadow", "ignore_result", "time_limit", "soft_time_limit",
    }
)  # fmt: skip
"""What a retry may change beside arguments and time; the rest stays as the first call had it."""

_RETRY_ARGUMENTS = RETRY_OPTIONS | {"args", "kwargs", "throw", "eta", "countdown", "max_retries"}
"""All of `Task.retry` but `exc`, which is what the task raised."""

_MAX_SHORT = 255
"""Bytes of UTF-8 that a name in AMQP can have."""


class _Kind(NamedTuple):
    """What the value of an option may be: of which types, said in words, and which of their values."""

    types: tuple[type, ...]
    wanted: str
    accepts: Callable[[Any], bool] = bool
    may_be_none: bool = True


def _is_text(value: str) -> bool:
    try:
        return len(value.encode()) <= _MAX_SHORT
    except UnicodeEncodeError:
        return False


def _is_name(value: str) -> bool:
    return value != "" and _is_text(value)


def _is_wait(value: float) -> bool:
    return 0 < value <= MAX_SECONDS


def _is_limit(value: float) -> bool:
    return 0 <= value <= MAX_SECONDS


def _is_rate(value: float | str) -> bool:
    try:
        per_second(value)
    except ValueError:
        return False
    return True


def _is_cluster_rate(value: float | str) -> bool:
    return _is_rate(value) and is_cluster_rate(per_second(value))


def _is_countdown(value: float) -> bool:
    return -math.inf < value <= MAX_SECONDS  # what is past is now


def _is_period(value: float | datetime | timedelta) -> bool:
    if isinstance(value, datetime):
        return True  # one in the past is a deadline that was missed: the task expires
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return 0 <= seconds < math.inf


def _always(_: object) -> bool:
    return True


_FLAG = _Kind((bool,), "True or False", _always)
_CALL_FLAG = _Kind((bool,), "True or False", _always, may_be_none=False)
_SECONDS = _Kind((int, float), "a number of seconds above 0 (at most a century)", _is_wait)
_LIMIT = _Kind((int, float), "a finite number of seconds, 0 for none", _is_limit)
_SHORT = _Kind((str,), f"text of 1 to {_MAX_SHORT} bytes of UTF-8", _is_name)
_KINDS: dict[str, _Kind] = {
    "task_id": _SHORT,
    "queue": _Kind(
        (str,),
        f"the name of a queue, 1 to {_MAX_SHORT} bytes of UTF-8 (declare it in task_queues to give it arguments; leave queue out"
        " for the default)",
        _is_name,
    ),
    "exchange": _Kind(
        (str,),
        f"the name of an exchange, at most {_MAX_SHORT} bytes of UTF-8 (declare it in task_queues)",
        _is_text,
    ),
    "routing_key": _Kind((str,), f"text of at most {_MAX_SHORT} bytes of UTF-8", _is_text),
    "priority": _Kind((int,), "a whole number from 0 to 255", range(256).__contains__),
    "serializer": _Kind((str,), "the name of a serializer, e.g. 'json'"),
    "compression": _Kind((str,), "the name of a compression, e.g. 'gzip', or None"),
    "headers": _Kind((Mapping,), "a mapping", _always),
    "countdown": _Kind((int, float), "a number of seconds (at most a century)", _is_countdown),
    "eta": _Kind((datetime,), "a datetime", _always),
    "expires": _Kind(
        (int, float, datetime, timedelta),
        "seconds from now or a timedelta, not negative, or a datetime",
        _is_period,
    ),
    "shadow": _Kind((str,), "text", _always),
    "argsrepr": _Kind((str,), "text", _always),
    "kwargsrepr": _Kind((str,), "text", _always),
    "ignore_result": _FLAG,
    "store_errors_even_if_ignored": _FLAG,
    "store_eager_result": _FLAG,
    "acks_late": _FLAG,
    "acks_on_failure": _FLAG,
    "acks_on_timeout": _FLAG,
    "track_started": _FLAG,
    "typing": _FLAG,
    "pydantic": _FLAG,
    "pydantic_strict": _FLAG,
    "pydantic_context": _Kind((Mapping,), "a mapping", _always),
    "pydantic_dump_kwargs": _Kind((Mapping,), "a mapping of arguments to model_dump()", _always),
    "trail": _FLAG,
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "rate_limit": _Kind((int, float, str), RATE_FORM, _is_rate),
    "cluster_rate_limit": _Kind((int, float, str), CLUSTER_RATE_FORM, _is_cluster_rate),
    "reply_to": _Kind(
        (str,), f"the name of a queue, at most {_MAX_SHORT} bytes of UTF-8; '' for no reply", _is_text
    ),
    "delivery_mode": _Kind((int,), "1 (transient) or 2 (persistent)", (1, 2).__contains__),
    "resultrepr_maxsize": _Kind((int,), "a number of characters above 0", (0).__lt__),
    "retry": _CALL_FLAG,
    "retry_policy": _Kind((Mapping,), "a mapping like the setting task_publish_retry_policy", _always),
    "timeout": _SECONDS,
    "confirm": _CALL_FLAG,
    "add_to_parent": _CALL_FLAG,
    "message_id": _SHORT,
    "idempotency_key": _SHORT,
    "idempotent": _CALL_FLAG,
    "app_id": _SHORT,
    "type": _SHORT,
    "user_id": _SHORT,
    "timestamp": _Kind((int, datetime), "whole seconds since 1970 or a datetime", _always),
    "link": _Kind((Mapping, list, tuple), "a signature, or a list of them", _always),
    "link_error": _Kind((Mapping, list, tuple), "a signature, or a list of them", _always),
    "stamps": _Kind((Mapping,), "a mapping of names to text, numbers or lists of these", _always),
    "max_retries": _Kind((int,), "a whole number from 0, or None for no limit", (-1).__lt__),
    "default_retry_delay": _Kind((int, float), "a finite number of seconds", _is_limit, may_be_none=False),
    "retry_kwargs": _Kind((Mapping,), "a mapping of arguments to retry()", _always, may_be_none=False),
    "retry_backoff": _Kind(
        (bool, int, float), "True, False or a number of seconds", _is_limit, may_be_none=False
    ),
    "retry_backoff_max": _Kind((int, float), "a finite number of seconds", _is_limit, may_be_none=False),
    "retry_jitter": _CALL_FLAG,
    "retry_plan": _Kind((RetryPlan,), "a RetryPlan, or None", _always),
}
"""What the values of options may be; None stands for "not given" where it may be given at all."""

_HOOK = "a hook is a method: write it in a class derived from Task, and say @app.task(base=...)"

_OTHERWISE = {
    "chain": "made by chain(...) and the operator |",
    "stamped_headers": "give the stamps as a mapping: stamps={'batch': 'b-1'}",
    "chord": "made by chord(...)",
    "group_id": "made by group(...)",
    "producer": "not needed: the app shares one connection for publishing among all threads",
    "connection": "not needed: the app shares one connection for publishing among all threads",
    "publisher": "not needed: the app shares one connection for publishing among all threads",
    "mandatory": "always on: a message that no queue takes raises UnroutableError",
    "correlation_id": "it is the id of the task: set `task_id`",
    "content_type": "it follows from how the arguments are written: set `serializer`",
    "content_encoding": "it follows from how the arguments are written: set `serializer` or `compression`",
    "expiration": "it follows from when the task must have started: set `expires`, in seconds",
    "cluster_id": "RabbitMQ makes no use of it: put it into `headers`",
    "immediate": "RabbitMQ does not implement it",
    "confirm_timeout": "named `timeout` here, as it covers the whole publish",
    "retry": "named `retry_plan` for a task: write retry_plan=RetryPlan(fast=2, then=Backoff(first=10))",
    "rate_limit": "it belongs to a task, not to a call: @app.task(rate_limit=...)",
    "cluster_rate_limit": "it belongs to a task, not to a call: @app.task(cluster_rate_limit=...)",
    "max_retries": "it belongs to a task or to self.retry, not to a call: @app.task(max_retries=...)",
    "countdown": "it belongs to a call, not to a task: task.apply_async(args, countdown=...)",
    "eta": "it belongs to a call, not to a task: task.apply_async(args, eta=...)",
    "task_id": "it belongs to a call, not to a task: task.apply_async(args, task_id=...)",
    "root_id": "it follows from the task that makes the call",
    "parent_id": "it follows from the task that makes the call",
    "result_serializer": "the setting result_serializer holds for all results",
    "backend": "the setting result_backend holds for all tasks",
    "reject_on_worker_lost": "a task whose process dies always runs again, up to the setting task_crash_limit",
    "send_events": "there are no events but those of progress, which need no option",
    "lazy": "a task is registered at once; leave it out",
    "shared": "a task belongs to its app; use @shared_task for one of all apps",
    "after_return": _HOOK,
    "before_start": _HOOK,
    "on_failure": _HOOK,
    "on_retry": _HOOK,
    "on_success": _HOOK,
}
"""Options of Celery, kombu and AMQP that are said in another way here, and how."""


def check_call_options(options: Mapping[str, Any]) -> None:
    """Refuse what no call can set.

    Raises:
        ConfigurationError: an unknown option, with the nearest name, or a value that cannot be.
    """
    check_names(options)
    _check_values(options, "call option")


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse names that are those of no call option.

    Raises:
        ConfigurationError: there is one, with the nearest name.
    """
    if not options.keys() <= CALL_OPTIONS:
        _refuse(options.keys() - CALL_OPTIONS, CALL_OPTIONS, "call option")


def check_retry_options(options: Mapping[str, Any]) -> None:
    """Refuse what no retry can change.

    Raises:
        ConfigurationError: an option that a retry cannot change, or a value of a wrong type.
    """
    if not options.keys() <= RETRY_OPTIONS:
        _refuse(options.keys() - RETRY_OPTIONS, RETRY_OPTIONS, "option of a retry")
    _check_values(options, "option of a retry")


def start_of(options: Mapping[str, Any]) -> float | datetime | None:
    """When a call may start: its `countdown` or its `eta`; None for at once.

    Raises:
        ConfigurationError: both are given.
    """
    countdown, eta = options.get("countdown"), options.get("eta")
    if countdown is not None and eta is not None:
        raise ConfigurationError(
            f"countdown={countdown!r} and eta={eta!r} exclude each other: give one of them"
        )
    return eta if countdown is None else countdown


def check_task_options(options: Mapping[str, Any], known: frozenset[str], task_name: str) -> None:
    """Refuse what no task of this class can set.

    Raises:
        ConfigurationError: an unknown option, with the nearest name, or a value that cannot be.
    """
    if not options.keys() <= known:
        _refuse(options.keys() - known, known, f"option of task {task_name!r}:")
    check_task_values(options, f"option of task {task_name!r}:")


def check_task_values(options: Mapping[str, Any], what: str) -> None:
    """Refuse values that no task can have, whatever its class.

    Raises:
        ConfigurationError: a value that cannot be.
    """
    _check_values(options, what)
    check_message_options(options, what)
    retry = options.get("retry_kwargs", {})
    if not retry.keys() <= _RETRY_ARGUMENTS:
        unknown = {str(name) for name in retry.keys() - _RETRY_ARGUMENTS}
        _refuse(unknown, _RETRY_ARGUMENTS, f"{what} retry_kwargs:")


_PLANNED = frozenset(
    {
        "autoretry_for", "default_retry_delay", "dont_autoretry_for", "max_retries", "retry_backoff", "retry_backoff_max",
        "retry_jitter", "retry_kwargs",
    }
)  # fmt: skip
"""What a `RetryPlan` stands in place of."""


def check_retry_plan(plan: Mapping[str, Any], beside: Mapping[str, Any], task_name: str) -> None:
    """Refuse options that a plan would silently overrule.

    Args:
        plan: the options among which `retry_plan` may be.
        beside: the options that were said together with it, or after it.
        task_name: for the message.

    Raises:
        ConfigurationError: the plan is there, and so is one of what it stands in place of.
    """
    others = sorted(_PLANNED & beside.keys())
    if plan.get("retry_plan") is not None and others:
        raise ConfigurationError(
            f"option of task {task_name!r}: retry_plan stands in place of {', '.join(others)}: say it in the plan, or leave"
            " the plan out"
        )


def check_message_options(options: Mapping[str, Any], what: str) -> None:
    """Refuse a serializer or compression that no message can have.

    Raises:
        ConfigurationError: there is none of that name, its extra is missing, or it runs code from messages.
    """
    # Importing them costs more than all of the rest, and most tasks name neither.
    if options.get("serializer") is None and options.get("compression") is None:
        return
    from amqp_tasks.serialization import compression_type, content_type_of

    for name, look_up in (("serializer", content_type_of), ("compression", compression_type)):
        if (value := options.get(name)) is not None:
            try:
                look_up(value)
            except ConfigurationError as exc:
                raise ConfigurationError(f"{what} {exc}") from exc


def check_destination(queue: str | None, exchange: str | None, what: str = "") -> None:
    """Refuse a queue together with an exchange.

    Raises:
        ConfigurationError: both are given.
    """
    if queue is not None and exchange is not None:
        raise ConfigurationError(
            f"{what}queue={queue!r} and exchange={exchange!r} exclude each other: give one of them"
        )


def _check_values(options: Mapping[str, Any], what: str) -> None:
    for name, value in options.items():
        kind = _KINDS.get(name)
        if kind is None or (value is None and kind.may_be_none):
            continue
        is_odd_flag = isinstance(value, bool) and bool not in kind.types
        if is_odd_flag or not isinstance(value, kind.types) or not kind.accepts(value):
            raise ConfigurationError(f"{what} {name!r} must be {kind.wanted}, got {value!r:.80}")
    _check_limits(options.get("time_limit"), options.get("soft_time_limit"), what)


def _check_limits(hard: float | None, soft: float | None, what: str) -> None:
    if hard and soft and soft >= hard:
        raise ConfigurationError(
            f"{what} 'soft_time_limit' ({soft:g} s) must be below time_limit ({hard:g} s), which would always be first: "
            "lower the one or raise the other"
        )


def _refuse(unknown: set[str], known: frozenset[str], what: str) -> None:
    name = min(unknown)
    if name in _OTHERWISE:
        raise ConfigurationError(f"{what} {name!r}: {_OTHERWISE[name]}")
    near = get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(known))})"
    raise ConfigurationError(f"unknown {what} {name!r}{hint}")
