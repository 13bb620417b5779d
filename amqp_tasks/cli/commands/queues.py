"""`amqp-tasks queues`: how full the app's queues are, and who consumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._output import json_option, print_json, print_table
from amqp_tasks.message import dead_letter_note

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("queues",)


@click.command(
    cls=Command,
    short_help="Print depth, consumers and type of queues.",
    epilog=command_epilog("amqp-tasks queues", "amqp-tasks queues hipri hipri.dead --json"),
)
@click.argument("names", nargs=-1)
@json_option
@global_options
@pass_globals
def queues(state: Globals, names: tuple[str, ...], as_json: bool) -> None:
    """Print depth, consumers and type of the app's queues, or of those in NAMES.

    The depth counts messages that wait, not those that a worker holds. `missing` is a queue that the broker does not
    have (yet). The type is the one that the app's topology declares.
    """
    with state.connected_app() as app:
        rows = [_row(app, name) for name in names or sorted(app.topology.queue_names)]
        counts = app.dead_letters.counts(names or None)
    if as_json:
        print_json(rows)
        return
    headings = ("queue", "type", "ready", "consumers", "state")
    print_table(headings, [[row[heading] for heading in headings] for row in rows])
    for name, count in counts.items():
        if count:
            state.note(dead_letter_note(name, count))


def _row(app: App, queue_name: str) -> dict[str, Any]:
    declared = app.topology.queue(queue_name)
    status = app.transport.queue_status(queue_name)
    return {
        "queue": queue_name,
        "type": str(declared.type) if declared else None,
        "ready": status.messages if status else None,
        "consumers": status.consumers if status else None,
        "state": "ok" if status else "missing",
    }
