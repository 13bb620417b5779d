"""`amqp-tasks result --follow`: a task's progress, drawn by another process than its caller's."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from amqp_tasks.app._bar import Bar
from amqp_tasks.app._progress import progress_in
from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._output import as_json_text
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.cli._globals import Globals
    from amqp_tasks.events import TaskEvent

__all__ = ("follow_task",)

_MAX_SHOWN = 4096


def follow_task(state: Globals, task_id: str, timeout: float | None, *, as_json: bool) -> ExitCode:
    """Show what is told of a task from now on.

    Raises:
        ResultTimeout: no end was told in time.
        BrokerConnectionError, BrokerOperationError: nothing can be heard.
    """
    console = Console(
        stderr=True, quiet=state.quiet or as_json, no_color=True if state.color is False else None
    )
    with state.connected_app() as app, app.events.follow(task_id) as follower:
        state.note(f"following {printable(task_id)}; Ctrl-C ends this, and not the task")
        with Bar(task_id[:8], console) as bar:
            told = (_shown(bar, event, as_json=as_json) for event in follower.events(timeout))
            end = deque(told, maxlen=1).pop()
    return _concluded(end, as_json=as_json)


def _shown(bar: Bar, event: TaskEvent, *, as_json: bool) -> TaskEvent:
    if as_json:
        click.echo(as_json_text(event.as_data()))
    elif event.type == "task-retried":
        bar.note(f"to be run again: {_text(event, 'exception')}")
    elif event.type == "task-dead":
        bar.note(f"dead letter of queue {_text(event, 'queue')}: {_text(event, 'reason')}")
    elif event.type == "task-state":
        bar.note(f"{_text(event, 'state')}: {_text(event, 'meta')}")
    elif event.type == "task-progress" and (progress := progress_in(event.fields)) is not None:
        bar.move(progress.done, progress.total, progress.note)
    return event


def _concluded(event: TaskEvent, *, as_json: bool) -> ExitCode:
    """Say how it ended, as `amqp-tasks result` does: a value on stdout, a failure on stderr."""
    is_success = event.type == "task-succeeded"
    if not as_json:
        words: dict[str, tuple[str, str]] = {
            "task-failed": ("FAILURE", "exception"),
            "task-revoked": ("REVOKED", ""),
        }
        word, field = words.get(event.type, ("IGNORED", ""))
        if is_success:
            click.echo(_text(event, "result"))
        else:
            click.echo(f"{word}: {_text(event, field)}" if field else word, err=True)
    return ExitCode.OK if is_success else ExitCode.FAILED


def _text(event: TaskEvent, field: str) -> str:
    found: Any = event.fields.get(field, "")
    return printable(found, _MAX_SHOWN)
