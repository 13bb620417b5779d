"""How the outcome of a task is shown, and which exit code it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._output import as_json_text, print_json
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.app import AsyncResult

__all__ = ("print_outcome", "print_sent")


def print_sent(task_id: str, *, as_json: bool) -> None:
    """Print the id of a task that was sent and is not waited for."""
    if as_json:
        print_json({"task_id": task_id})
    else:
        click.echo(task_id)


def print_outcome(result: AsyncResult[Any], *, as_json: bool) -> ExitCode:
    """Print a finished task's value on stdout, or its failure; a failed task is exit code 1."""
    failed = not result.successful()
    if as_json:
        print_json(_as_data(result, failed=failed))
    elif failed:
        error = result.result
        click.echo(f"{result.state}: {printable(f'{type(error).__name__}: {error}')}", err=True)
    else:
        click.echo(as_json_text(result.result))
    return ExitCode.FAILED if failed else ExitCode.OK


def _as_data(result: AsyncResult[Any], *, failed: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"task_id": result.id, "state": str(result.state)}
    if failed:
        error = result.result
        return data | {"error": {"type": type(error).__name__, "message": str(error)}}
    return data | {"result": result.result}
