"""Failures of tasks as exceptions at the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import RemoteError, TaskError
from amqp_tasks.message import exception_from_data

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._task import Task
    from amqp_tasks.message import ResultRecord

__all__ = ("exception_of",)


def exception_of(record: ResultRecord, *, app: App, task: Task[..., Any] | None) -> Exception:
    """The exception to raise for a failed task, its remote traceback attached as a note.

    Re-created are built-in exceptions, our own, those in `result_exceptions` and those that the task's `throws` names;
    every other one becomes a `RemoteError` with the type's name, arguments and traceback as data.
    """
    settings = app.settings
    if isinstance(record.result, Exception):
        return record.result
    allowed = (*settings.result.exceptions, *(task.throws if task is not None else ()))
    exc = exception_from_data(record.result, allowed, traceback=record.traceback)
    if isinstance(exc, TaskError):
        exc.task_id = record.task_id
    shown = record.traceback and (settings.task.remote_tracebacks or not isinstance(exc, RemoteError))
    if shown:
        exc.add_note(f"remote traceback of task {record.task_id}:\n{record.traceback}")
    return exc
