"""Which hooks of a task are called with what, after a run and after an end without one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from amqp_tasks.app._execution import Outcome, run_to_end
from amqp_tasks.app._request import FRAME, Frame, Request
from amqp_tasks.errors import Reject, Retry, TaskError
from amqp_tasks.message import DeadLetterReason, State

if TYPE_CHECKING:
    from amqp_tasks.app._task import Task

__all__ = ("ExceptionInfo", "run_hooks", "tell_dead")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionInfo:
    """What hooks get of an exception; `str()` is its traceback."""

    type: type[BaseException]
    exception: BaseException
    traceback: str

    def __str__(self) -> str:
        return self.traceback


def _nothing(error: BaseException | None) -> None:
    """Nobody is told when a hook has ended."""


def run_hooks(
    task: Task[..., Any],
    request: Request,
    outcome: Outcome,
    came_back: Callable[[BaseException | None], None] = _nothing,
) -> None:
    """Call the hooks that tell of an outcome. In a worker nothing they raise gets out; in eager runs everything does.

    Args:
        task: whose.
        request: of the run.
        outcome: of the run.
        came_back: told of the end of each hook, before anything else is done, and of what it has raised.

    Raises:
        BaseException: what a hook raised, in eager runs.
    """
    _tell(task, request, _calls(request, outcome), came_back)


def tell_dead(
    task: Task[..., Any],
    request: Request,
    exc: Exception,
    came_back: Callable[[BaseException | None], None] = _nothing,
) -> None:
    """Call `on_dead` for a task that ends without a run of its own to tell of; raises nothing. `came_back`: see `run_hooks`."""
    _tell(task, request, [_death(request, exc, "")], came_back)


_Call: TypeAlias = "tuple[str, tuple[Any, ...]]"


def _tell(
    task: Task[..., Any],
    request: Request,
    calls: list[_Call],
    came_back: Callable[[BaseException | None], None],
) -> None:
    token = FRAME.set(Frame(task, request, FRAME.get(), is_over=True))
    try:
        for name, arguments in calls:
            if name in task.hooks:
                _call(task, request, name, arguments, came_back)
    finally:
        FRAME.reset(token)


_TOLD = frozenset({State.SUCCESS, State.FAILURE, State.RETRY, State.REVOKED})


def _calls(request: Request, outcome: Outcome) -> list[_Call]:
    calls = _of_the_run(request, outcome)
    exc, traceback = outcome.exception, outcome.traceback_text or ""
    if isinstance(exc, Reject) and not exc.requeue:
        calls.append(_death(request, TaskError(f"{DeadLetterReason.REJECTED}: {exc.reason}"), traceback))
    elif exc is not None and outcome.state == State.FAILURE and outcome.again is None:
        calls.append(_death(request, exc, traceback))
    return calls


def _death(request: Request, exc: Exception, traceback: str) -> _Call:
    einfo = ExceptionInfo(type=type(exc), exception=exc, traceback=traceback)
    return "on_dead", (exc, request.id, request.args, request.kwargs, einfo)


def _of_the_run(request: Request, outcome: Outcome) -> list[_Call]:
    about = (request.id, request.args, request.kwargs)
    exc = outcome.exception
    if outcome.is_invalid or outcome.state not in _TOLD:
        return []
    if exc is None:
        return [
            ("on_success", (outcome.retval, *about)),
            ("after_return", (outcome.state, outcome.retval, *about, None)),
        ]
    einfo = ExceptionInfo(type=type(exc), exception=exc, traceback=outcome.traceback_text or "")
    last = ("after_return", (outcome.state, exc, *about, einfo))
    if outcome.state == State.REVOKED:
        return [last]
    first = ("on_retry", exc.exc) if isinstance(exc, Retry) else ("on_failure", exc)
    return [(first[0], (first[1], *about, einfo)), last]


def _call(
    task: Task[..., Any],
    request: Request,
    name: str,
    arguments: tuple[Any, ...],
    came_back: Callable[[BaseException | None], None],
) -> None:
    try:
        returned = getattr(task, name)(*arguments)
        if iscoroutine(returned):
            run_to_end(returned)
    except BaseException as exc:
        came_back(exc)
        # The outcome is known; a hook can neither change it nor end the worker. Tests want to see it, though.
        if request.is_eager:
            raise
        _log.exception(
            "hook %s of task %s[%s] failed", name, task.name, request.id,
            extra={"action": "hook_failed", "task_id": request.id, "task_name": task.name},
        )  # fmt: skip
    else:
        came_back(None)
