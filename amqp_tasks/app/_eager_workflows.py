"""Running a workflow in the caller: `apply()` of a signature, and every call while `task_always_eager` is set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._builtins import add_builtins
from amqp_tasks.app._eager import failed_result, run_eagerly
from amqp_tasks.app._errbacks import run_errback, separate, takes_exception
from amqp_tasks.app._group_result import GroupResult
from amqp_tasks.app._request import Request
from amqp_tasks.app._result import AsyncResult
from amqp_tasks.app._signature_options import call_options
from amqp_tasks.canvas import (
    Signature,
    chain,
    chord,
    first_errbacks,
    group,
    signature,
    upgraded,
    with_options,
)
from amqp_tasks.errors import ChordError
from amqp_tasks.message import exception_to_data, new_task_id, printable, told_outcome

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("run_follow_ups", "run_workflow")

logger = logging.getLogger(__name__)


def run_workflow(
    app: App, part: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], *, throw: bool, serialize: bool
) -> Any:
    """Run all of it here, one task after the other; returns the finished `AsyncResult` or `GroupResult`.

    Args:
        app: whose tasks they are.
        part: the workflow.
        args: further arguments of what it begins with.
        kwargs: likewise.
        throw: the first exception is raised.
        serialize: arguments and results go through the serializers, as they would on the wire.

    Raises:
        Exception: what a task raises, with `throw`.
    """
    add_builtins(app)
    return _Run(app, throw=throw, serialize=serialize).part(part, args, kwargs)


def run_follow_ups(
    app: App, request: Request, result: AsyncResult[Any], *, throw: bool, serialize: bool
) -> None:
    """Run the callbacks or the errbacks of a task that was run here; arguments and errors as `run_workflow`.

    Args:
        app: whose tasks they are.
        request: of the task; has them.
        result: of the task.
        throw: the first exception is raised.
        serialize: arguments and results go through the serializers.
    """
    add_builtins(app)
    _Run(app, throw=throw, serialize=serialize).follow_ups(request, result)


class _Run:
    def __init__(self, app: App, *, throw: bool, serialize: bool) -> None:
        self._app, self._throw, self._serialize = app, throw, serialize

    def part(self, part: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(part, chain):
            return self._chain(part, args, kwargs)
        if isinstance(part, group):
            group_id, own = part.own_options()
            members = [
                self.part(with_options(member, own), (*args, *part.args), kwargs) for member in part.stream()
            ]
            return GroupResult(group_id or new_task_id(), members)
        if isinstance(part, chord):
            return self._chord(part, args, kwargs)
        return self._single(part.clone(args, kwargs))

    def _chain(self, part: chain, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        result: Any = None
        args = (*args, *part.args)
        for step in upgraded(part.steps):
            before, result = result, self.part(step, args, kwargs)
            _hang(result, before)
            if _error(result) is not None:
                break
            args, kwargs = (_value(result),), {}
        return result

    def _chord(self, part: chord, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        throw = self._throw and not part.is_on_complete
        inner = _Run(self._app, throw=throw, serialize=self._serialize)
        header = inner.part(part.header, (*args, *part.args), kwargs)
        body = with_options(part.body, part.options)
        failed = next((member for member in header if _error(member) is not None), None)
        if part.is_on_complete:
            result = self.part(body, (list(map(_outcome, header)),), {})
        elif failed is None:
            result = self.part(body, (_value(header),), {})
        else:
            error = ChordError(f"Dependency {failed.id} raised {_error(failed)!r}")
            error.__cause__ = _error(failed)
            task_id, errbacks = first_errbacks(body)
            result = failed_result(self._app, task_id or new_task_id(), error)
            self._call_errbacks(errbacks, Request(id=result.id, is_eager=True), error)
        _hang(result, header)
        return result

    def _single(self, call: Signature) -> AsyncResult[Any]:
        options = call_options(call.options)
        task = self._app.calls.named(call.task)
        return run_eagerly(
            task, call.args, call.kwargs, options, throw=self._throw, serialize=self._serialize
        )

    def follow_ups(self, request: Request, result: AsyncResult[Any]) -> None:
        error = _error(result)
        if error is not None:
            self._call_errbacks(request.errbacks or (), request, error, result.traceback)
        elif result.successful():
            for callback in request.callbacks or ():
                self.part(signature(callback), (_value(result),), {})

    def _call_errbacks(
        self, errbacks: Sequence[Any], request: Request, error: Exception, traceback: str | None = None
    ) -> None:
        """Each for itself, as workers do: one that raises, or cannot be called at all, stops none after it."""
        for errback in separate(errbacks):
            try:
                self._call_errback(signature(errback), request, error, traceback)
            except (Exception, SystemExit):
                logger.exception(
                    "an errback of task %s failed", printable(request.id or ""),
                    extra={"action": "errback_failed", "task_id": request.id},
                )  # fmt: skip

    def _call_errback(
        self, errback: Signature, request: Request, error: Exception, traceback: str | None
    ) -> None:
        if takes_exception(self._app, errback):
            run_errback(errback.bound_to(self._app.sender), request, error, traceback)
        else:
            self.part(errback, (request.id,), {})


def _hang(result: Any, before: Any) -> None:
    """`result` comes after `before`, and of a group each member does."""
    while result.parent is not None:
        result = result.parent
    if result is not before:
        result.parent = before
        for member in getattr(result, "results", ()):
            _hang(member, before)


def _value(result: Any) -> Any:
    return result.get(disable_sync_subtasks=False)


def _outcome(member: Any) -> dict[str, Any]:
    error = _error(member)
    data = None if error is None else exception_to_data(error)
    return told_outcome(member.id, None if error is not None else _value(member), data)


def _error(result: Any) -> Exception | None:
    members: Any = getattr(result, "results", None)  # those of a group
    if members is not None:
        return next((error for member in members if (error := _error(member)) is not None), None)
    found = result.result
    return found if result.failed() and isinstance(found, Exception) else None
