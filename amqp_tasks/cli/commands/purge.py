"""`amqp-tasks purge`: remove the waiting messages of queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import (
    exclude_queues_option,
    json_option,
    need_terminal,
    queues_option,
    yes_option,
)
from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.errors import UnknownQueue
from amqp_tasks.message import dead_letter_queue_name

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("purge",)


@click.command(
    cls=Command,
    short_help="Remove the waiting messages of queues.",
    epilog=command_epilog("amqp-tasks purge -Q lopri", "amqp-tasks purge -X hipri --yes --json"),
)
@queues_option("Queues to purge. [default: the app's task queues]")
@exclude_queues_option("Queues to leave alone. [default: none]")
@yes_option("-f", "--force")
@json_option
@global_options
@pass_globals
def purge(
    state: Globals,
    queues: tuple[str, ...] | None,
    exclude_queues: tuple[str, ...] | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove all waiting messages of the app's task queues. They are lost.

    Messages that a worker holds are not touched, nor are dead-letter queues unless -Q names them. Where -Q names
    a queue that is not there, the others are purged, and the exit code is 1.
    """
    with state.connected_app() as app:
        names = [name for name in queues or _task_queues(app) if name not in (exclude_queues or ())]
        if not names:
            raise click.UsageError("no queue is left to purge")
        if not yes and not _confirmed(app, names):
            click.echo("nothing was purged", err=True)
            return ExitCode.FAILED
        rows = [{"queue": name, "purged": _purged(app, name)} for name in names]
    if as_json:
        print_json(rows)
    else:
        print_table(("queue", "purged"), [(row["queue"], row["purged"]) for row in rows])
    is_missing = any(row["purged"] is None for row in rows)
    return ExitCode.FAILED if queues and is_missing else ExitCode.OK


def _task_queues(app: App) -> list[str]:
    names = app.topology.queue_names
    dead = {dead_letter_queue_name(name) for name in names}
    return [name for name in names if name not in dead]


def _confirmed(app: App, names: list[str]) -> bool:
    need_terminal("purge", "messages")
    for name in names:
        status = app.transport.queue_status(name)
        click.echo(f"  {name}: {status.messages if status else 'missing'}", err=True)
    return click.confirm("Remove these messages for good?", err=True)


def _purged(app: App, queue_name: str) -> int | None:
    try:
        return app.transport.purge_queue(queue_name)
    except UnknownQueue:
        return None
