"""Running one task: what `apply()`, eager calls and every worker pool have in common.

`execute` turns a request and its decoded arguments into an `Outcome`; it does no I/O and settles nothing. Signals
that are meant for the process (`SystemExit`, `KeyboardInterrupt`, and whatever else is no `Exception`) pass through.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from inspect import iscoroutine
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from amqp_tasks.app import _retry, _task
from amqp_tasks.app._request import DEPTH_HEADER, FRAME, DeliveryInfo, Frame, Request
from amqp_tasks.app._retry import Again, autoretry, snoozed, wanted_by
from amqp_tasks.app._task import Task
from amqp_tasks.errors import (
    Ignore,
    InvalidArguments,
    Reject,
    Replaced,
    Retry,
    Snooze,
    TaskPredicate,
    TaskRevokedError,
)
from amqp_tasks.message import (
    FIRST_ERROR_TIME,
    IDEMPOTENCY_HEADER,
    JOINS_HEADER,
    RATE_HEADER,
    REQUEUES_HEADER,
    SIGNATURE_HEADER,
    SNOOZES_HEADER,
    STEP_HEADER,
    State,
    further_properties,
    read_joins,
    read_mark,
    read_stamps,
)

if TYPE_CHECKING:
    from amqp_tasks.message import Envelope

_OUR_FILES = frozenset({__file__, _retry.__file__, _task.__file__})

_PLAIN_CALL: Any = vars(Task)["__call__"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})

_WORDS = {Replaced: "REPLACED", Retry: State.RETRY, Snooze: "SNOOZED", Ignore: "IGNORED", Reject: "REJECTED"}

_OF_THIS_CALL = (
    SNOOZES_HEADER, REQUEUES_HEADER, RATE_HEADER, FIRST_ERROR_TIME, JOINS_HEADER, STEP_HEADER, SIGNATURE_HEADER,
)  # fmt: skip
"""Headers that say something of one call: who passes its headers on to another must not pass on these."""

__all__ = (
    "Arguments",
    "Guard",
    "Outcome",
    "awaited",
    "execute",
    "failed",
    "format_traceback",
    "request_from",
    "run_to_end",
)


class Arguments(Protocol):
    """Decoded arguments; `amqp_tasks.message.Payload` is one."""

    @property
    def args(self) -> Any:
        """Positional arguments: a sequence."""

    @property
    def kwargs(self) -> Any:
        """Keyword arguments: a mapping with text keys."""


class Guard(Protocol):
    """Who watches over one call of a task's function, and may interrupt it in between with an exception."""

    def open(self) -> None:
        """The function is about to be called."""

    def close(self) -> None:
        """It has returned or raised; after this nothing interrupts."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How one execution ended. Treat as read-only.

    Attributes:
        state: SUCCESS, FAILURE or RETRY; REVOKED, where it gave up because it is; SNOOZED, IGNORED or REJECTED, which are told to nobody.
        value: what is stored: the return value, with models written as plain data; None after a failure.
        retval: the return value as the function gave it.
        exception: what it raised; a `TaskPredicate` is no failure.
        traceback_text: the traceback, without our own frames.
        runtime: seconds on the monotonic clock.
        children: ids of the tasks that it sent.
        is_invalid: the arguments did not fit, so the function was never entered.
        is_expected: the exception is one that the task announces with `throws`.
        added: how many tasks it added to the header it is in.
        was_run: the function was to be called; else its outcome is that of another call, or put off.
        again: the run that is to follow; also after a success or a failure, if the task asked for one and went on.
    """

    state: str
    value: Any = None
    retval: Any = None
    exception: Exception | None = None
    traceback_text: str | None = None
    runtime: float = 0.0
    children: tuple[str, ...] = ()
    is_invalid: bool = False
    is_expected: bool = False
    added: int = 0
    again: Again | None = None
    was_run: bool = True


def execute(
    task: Task[..., Any],
    request: Request,
    payload: Arguments,
    *,
    guard: Guard | None = None,
    is_revoked: Callable[[], bool] | None = None,
    came_back: Callable[[], None] | None = None,
) -> Outcome:
    """Run `task` once for `request`, watched over by `guard`; every `Exception` becomes part of the outcome.

    `is_revoked` is what `Task.cancelled` asks; None: as in the execution around it, if there is one. `came_back` is called after the hook
    that comes before the function.

    Fills `request.args` and `request.kwargs` with what the function gets. An `async def` task runs to its end on an
    event loop of its own.

    Thread safety: any thread; each execution sees its own request, in threads and in coroutines.

    Raises:
        BaseException: what is not an `Exception` (SystemExit, KeyboardInterrupt) passes through.
    """
    around = FRAME.get()
    frame = Frame(
        task, request, around, is_revoked=is_revoked or (around.is_revoked if around is not None else bool)
    )
    token = FRAME.set(frame)
    started = time.perf_counter()
    try:
        outcome = _attempt(frame, payload, guard, came_back)
    finally:
        FRAME.reset(token)
    outcome.runtime = time.perf_counter() - started
    outcome.added = frame.added
    if frame.children:
        outcome.children = tuple(frame.children)
    return outcome


def _attempt(
    frame: Frame, payload: Arguments, guard: Guard | None, came_back: Callable[[], None] | None
) -> Outcome:
    task, request = frame.task, frame.request
    try:
        args, kwargs = task.parameters.load(payload.args, payload.kwargs)
    except InvalidArguments as exc:
        request.args, request.kwargs = tuple(payload.args), dict(payload.kwargs)
        return failed(task, exc, is_invalid=True)
    except Exception as exc:  # noqa: BLE001 - validators are users' code too
        return failed(task, exc)
    request.args, request.kwargs = tuple(args), dict(kwargs)
    try:
        if task.hooks and "before_start" in task.hooks:
            _before_start(frame)
            if came_back is not None:
                came_back()
        if task.autoretry_for or task.retry_plan is not None:
            retval = _call_retrying(frame, args, kwargs, guard)
        else:
            retval = (
                _call(frame, args, kwargs) if guard is None else _call_guarded(frame, args, kwargs, guard)
            )
        value = task.parameters.dump_return(retval)
    except Exception as exc:  # noqa: BLE001 - whatever a task raises is its outcome
        return _raised(frame, exc)
    if frame.again is not None:
        return Outcome(state=State.SUCCESS, value=value, retval=retval, again=frame.again)
    return Outcome(state=State.SUCCESS, value=value, retval=retval)


def _before_start(frame: Frame) -> None:
    request = frame.request
    returned: Any = frame.task.before_start(request.id or "", request.args, request.kwargs)  # type: ignore[func-returns-value]  # it may be async
    if iscoroutine(returned):
        run_to_end(returned)


def _call_retrying(frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any], guard: Guard | None) -> Any:
    try:
        return _call(frame, args, kwargs) if guard is None else _call_guarded(frame, args, kwargs, guard)
    except Exception as exc:
        if not _gives_up(frame, exc):
            autoretry(frame, exc)
        raise


def _gives_up(frame: Frame, exc: Exception) -> bool:
    """Whether a task ends because it is revoked; what it raises is else an error like any other."""
    return isinstance(exc, TaskRevokedError) and frame.is_revoked()


def _raised(frame: Frame, exc: Exception) -> Outcome:
    """The outcome of a run that ended with an exception, or with a word about what becomes of the task."""
    if _gives_up(frame, exc):
        return Outcome(state=State.REVOKED, exception=exc, traceback_text=format_traceback(exc))
    if not isinstance(exc, TaskPredicate):
        outcome = failed(frame.task, exc)
    else:
        try:
            if isinstance(exc, Retry):
                wanted_by(frame, exc)
            elif isinstance(exc, Snooze):
                frame.again = snoozed(exc)
        except Exception as refusal:  # noqa: BLE001 - a retry that cannot be is the end of the task
            return failed(frame.task, refusal)
        outcome = Outcome(state=_word(exc), exception=exc, traceback_text=format_traceback(exc))
    outcome.again = frame.again
    return outcome


def _word(exc: TaskPredicate) -> str:
    return next((word for kind, word in _WORDS.items() if isinstance(exc, kind)), "IGNORED")


def _call(frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    task = frame.task
    # A base class may wrap executions by overriding __call__; everything else skips it.
    kind: type[Task[..., Any]] = type(task)
    if kind.__call__ is _PLAIN_CALL:
        retval = task.run(*args, **kwargs)
    else:
        frame.is_dispatching = True
        retval = task(*args, **kwargs)
    return awaited(retval)


def _call_guarded(frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any], guard: Guard) -> Any:
    """Within the caller's `try`: the guard's interruption may come in here too, and is the outcome then."""
    try:
        guard.open()
        return _call(frame, args, kwargs)
    finally:
        guard.close()


def awaited(returned: Any) -> Any:
    """What a task's function has returned, which of an `async def` is run to its end."""
    return run_to_end(returned) if iscoroutine(returned) else returned


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on an event loop of its own, in this context."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # Eager execution inside somebody's event loop: that loop cannot run another, so a thread does.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="amqp-tasks-eager") as executor:
        return executor.submit(copy_context().run, asyncio.run, coroutine).result()


def failed(task: Task[..., Any], exc: Exception, *, is_invalid: bool = False) -> Outcome:
    """The outcome of a run that ended with `exc`."""
    return Outcome(
        state=State.FAILURE,
        exception=exc,
        traceback_text=format_traceback(exc),
        is_invalid=is_invalid,
        is_expected=isinstance(exc, task.throws),
    )


def format_traceback(exc: BaseException) -> str:
    """The traceback as text, without our own frames at its outer end."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename in _OUR_FILES:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(exc), exc, tb))


def request_from(
    envelope: Envelope,
    *,
    delivery_info: DeliveryInfo,
    hostname: str,
    embed: Mapping[str, Any] = _NOTHING,
) -> Request:
    """The request of a received message; `execute` fills in the arguments.

    Args:
        envelope: what the message's headers say.
        delivery_info: how it came.
        hostname: node name of the worker.
        embed: what follows it, from its body.
    """
    headers = envelope.user_headers
    if headers:
        for name in _OF_THIS_CALL:
            headers.pop(name, None)
    depth, key = headers.pop(DEPTH_HEADER, 0), headers.pop(IDEMPOTENCY_HEADER, None)
    nesting = envelope.headers.get("replaced_task_nesting")
    return Request(
        id=envelope.id,
        task=envelope.task,
        root_id=envelope.root_id,
        parent_id=envelope.parent_id,
        group=envelope.group,
        group_index=envelope.group_index,
        retries=envelope.retries,
        eta=envelope.eta,
        expires=envelope.expires,
        shadow=envelope.shadow,
        delivery_info=delivery_info,
        reply_to=envelope.reply_to or None,
        correlation_id=envelope.correlation_id,
        hostname=hostname,
        origin=envelope.origin,
        timelimit=(envelope.time_limit, envelope.soft_time_limit),
        headers=headers,
        properties=further_properties(envelope.properties),
        ignore_result=envelope.ignore_result,
        depth=depth if isinstance(depth, int) and depth > 0 else 0,
        lang=envelope.lang or "py",
        argsrepr=envelope.argsrepr,
        kwargsrepr=envelope.kwargsrepr,
        replaced_task_nesting=nesting if isinstance(nesting, int) and nesting > 0 else 0,
        stamps=read_stamps(envelope.headers),
        joins=read_joins(envelope.headers),
        mark=read_mark(envelope.headers),
        idempotency_key=key if isinstance(key, str) and key else None,
        callbacks=embed.get("callbacks"),
        errbacks=embed.get("errbacks"),
        chain=embed.get("chain"),
        chord=embed.get("chord"),
    )
