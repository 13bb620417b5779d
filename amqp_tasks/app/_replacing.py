"""Changing a workflow from inside: another part in a task's place, one more member for its chord."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from amqp_tasks.canvas import Join, Signature, accumulated, added_index, group, signature
from amqp_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from amqp_tasks.app._request import Frame
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._task import Task

__all__ = ("add_to_chord", "replacement")

_MAX_NESTING = 100


def replacement(task: Task[..., Any], given: Any) -> Signature:
    """What is to run in place of the running task; with one result, so that it can be had under one id.

    Raises:
        ConfigurationError: no signature, not in a running task, or replaced too often.
    """
    request = _frame(task, "replace").request
    if request.replaced_task_nesting >= _MAX_NESTING:
        raise ConfigurationError(
            f"task {task.name!r} was replaced {request.replaced_task_nesting} times: does it replace itself for ever?"
        )
    part = signature(given)
    return accumulated(part) if isinstance(part, group) else part


def add_to_chord(task: Task[..., Any], given: Any) -> AsyncResult[Any]:
    """See `Task.add_to_chord`."""
    frame = _frame(task, "add_to_chord")
    part = signature(given)
    if part.subtask_type is not None:
        raise ConfigurationError(f"add_to_chord takes a signature of one task, got {part!r:.200}")
    if not frame.request.joins:
        raise ConfigurationError(f"task {task.name!r} is in the header of no chord")
    queue, index, size = frame.request.joins[0]
    added = Join(queue=queue, index=added_index(index, frame.added), size=size)
    result = task.app.workflows.send_joined(part, added, frame)
    frame.added += 1
    return cast("AsyncResult[Any]", result)


def _frame(task: Task[..., Any], what: str) -> Frame:
    frame = task.frame
    if frame is None or frame.request.called_directly:
        raise ConfigurationError(f"{what} is for a running task; {task.name!r} was called as a function")
    return frame
