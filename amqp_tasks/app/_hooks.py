"""What a task's class is told of its runs; Celery's hooks, with Celery's signatures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._execution import Outcome, run_to_end
from amqp_tasks.app._request import FRAME, Frame, Request
from amqp_tasks.errors import Retry
from amqp_tasks.message import State

if TYPE_CHECKING:
    from amqp_tasks.app._task import Task

__all__ = ("ExceptionInfo", "run_hooks")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionInfo:
    """What hooks get of an exception; `str()` is its traceback."""

    type: type[BaseException]
    exception: BaseException
    traceback: str

    def __str__(self) -> str:
        return self.traceback


def run_hooks(task: Task[..., Any], request: Request, outcome: Outcome) -> None:
    """Call the hooks that tell of an outcome. In a worker nothing they raise gets out; in eager runs everything does.

    Raises:
        BaseException: what a hook raised, in eager runs.
    """
    if outcome.is_invalid or outcome.state not in _TOLD:
        return
    token = FRAME.set(Frame(task, request, FRAME.get(), is_over=True))
    try:
        for name, arguments in _calls(request, outcome):
            if name in task.hooks:
                _call(task, request, name, arguments)
    finally:
        FRAME.reset(token)


_TOLD = frozenset({State.SUCCESS, State.FAILURE, State.RETRY})


def _calls(request: Request, outcome: Outcome) -> list[tuple[str, tuple[Any, ...]]]:
    about = (request.id, request.args, request.kwargs)
    exc = outcome.exception
    if exc is None:
        return [
            ("on_success", (outcome.retval, *about)),
            ("after_return", (outcome.state, outcome.retval, *about, None)),
        ]
    einfo = ExceptionInfo(type=type(exc), exception=exc, traceback=outcome.traceback_text or "")
    first = ("on_retry", exc.exc) if isinstance(exc, Retry) else ("on_failure", exc)
    return [
        (first[0], (first[1], *about, einfo)),
        ("after_return", (outcome.state, exc, *about, einfo)),
    ]


def _call(task: Task[..., Any], request: Request, name: str, arguments: tuple[Any, ...]) -> None:
    try:
        returned = getattr(task, name)(*arguments)
        if iscoroutine(returned):
            run_to_end(returned)
    except BaseException:
        # The outcome is known; a hook can neither change it nor end the worker. Tests want to see it, though.
        if request.is_eager:
            raise
        _log.exception(
            "hook %s of task %s[%s] failed", name, task.name, request.id,
            extra={"action": "hook_failed", "task_id": request.id, "task_name": task.name},
        )  # fmt: skip
