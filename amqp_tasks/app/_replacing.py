"""Changing a workflow from inside: another part in a task's place, one more member for its chord, the call itself once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from amqp_tasks.canvas import Join, Signature, accumulated, added_index, signature
from amqp_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from amqp_tasks.app._options import CallOptions
    from amqp_tasks.app._request import Frame, Request
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._task import Task

__all__ = ("add_to_chord", "replacement", "signature_of_request")

_MAX_NESTING = 100


def replacement(task: Task[..., Any], given: Any) -> Signature:
    """What is to run in place of the running task; with one result, so that it can be had under one id.

    Raises:
        ConfigurationError: no signature, not in a running task, replaced too often, or after it has added to its chord.
    """
    frame = _frame(task, "replace")
    if frame.added:
        # Its own outcome would say how many; that of what takes its place says what that adds.
        raise ConfigurationError(
            f"task {task.name!r} has called add_to_chord and cannot be replaced after that:"
            " call add_to_chord in the task that takes its place"
        )
    request = frame.request
    if request.replaced_task_nesting >= _MAX_NESTING:
        raise ConfigurationError(
            f"task {task.name!r} was replaced {request.replaced_task_nesting} times: does it replace itself for ever?"
        )
    return accumulated(signature(given))


def add_to_chord(task: Task[..., Any], given: Any) -> AsyncResult[Any]:
    """See `Task.add_to_chord`."""
    frame = _frame(task, "add_to_chord")
    part = signature(given)
    if part.subtask_type is not None:
        raise ConfigurationError(f"add_to_chord takes a signature of one task, got a {part.subtask_type}")
    if frame.request.mark is not None:
        raise ConfigurationError(
            f"task {task.name!r} is a step of a workflow, not in the header of a chord: make {part.task!r} a step of its own"
        )
    if not frame.request.joins:
        raise ConfigurationError(
            f"task {task.name!r} is in the header of no chord: only tasks of a header can add to it"
        )
    if frame.request.is_followed:
        raise ConfigurationError(
            f"task {task.name!r} is followed by other steps of its chain, and the last of them is the member of the chord:"
            " call add_to_chord there"
        )
    queue, index, size = frame.request.joins[0]
    added = Join(queue=queue, index=added_index(index, frame.added), size=size)
    result = task.app.workflows.send_joined(part, added, frame)
    frame.added += 1
    return cast("AsyncResult[Any]", result)


def signature_of_request(
    task: Task[..., Any],
    request: Request,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: CallOptions,
) -> Signature:
    """See `Task.signature_from_request`."""
    info, (time_limit, soft_time_limit) = request.delivery_info, request.timelimit
    headers = {**request.headers, **(request.mark.header if request.mark is not None else {})}
    has_place = options.get("queue") or options.get("exchange") or options.get("routing_key")
    own: dict[str, Any] = {
        "task_id": request.id, "queue": None if has_place else info.get("queue"), "priority": info.get("priority"),
        "expires": request.expires, "shadow": request.shadow, "headers": headers or None,
        "ignore_result": request.ignore_result, "reply_to": request.reply_to, "time_limit": time_limit,
        "soft_time_limit": soft_time_limit, "link": request.callbacks, "link_error": request.errbacks,
        "stamps": request.stamps or None, "idempotency_key": request.idempotency_key,
    }  # fmt: skip
    known = {name: value for name, value in own.items() if value is not None}
    return task.signature(
        request.args if args is None else args,
        request.kwargs if kwargs is None else kwargs,
        **cast("CallOptions", {**known, **options}),
    )


def _frame(task: Task[..., Any], what: str) -> Frame:
    frame = task.frame
    if frame is None or frame.request.called_directly:
        raise ConfigurationError(f"{what} is for a running task; {task.name!r} was called as a function")
    return frame
