"""`amqp-tasks queues`: how full the app's queues are, and who consumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option
from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.errors import QueueNotRunning
from amqp_tasks.message import dead_letter_note, listed
from amqp_tasks.transport._partial import PartialTopology
from amqp_tasks.worker._paused import read_paused_queues

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import QueueStatus

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
    have (yet), `down` one that it has and whose node does not run it now, `paused` one of which workers run nothing, `differs` one that it has with other arguments
    than the app's topology declares. The type is the one declared; with --json `differences` says what the broker has, also of a paused queue.
    """
    with state.connected_app() as app:
        wanted = names or sorted(app.topology.queue_names)
        paused = read_paused_queues(app, wanted)
        rows = [_row(app, name, is_paused=name in (paused or ())) for name in wanted]
        counts = _dead_letters(app, names)
    if as_json:
        print_json(rows)
        return
    headings = ("queue", "type", "ready", "consumers", "state")
    print_table(headings, [[row[heading] for heading in headings] for row in rows])
    if differing := [row["queue"] for row in rows if row["differences"]]:
        state.note(
            f"the broker has other arguments of {listed(differing)}; to see which: amqp-tasks topology check"
        )
    if paused is None:
        state.note("the journal could not be read: whether queues are paused is not known")
    if counts is None:
        state.note("the dead letters could not be counted: a queue of them does not run now")
    for name, count in (counts or {}).items():
        if count:
            state.note(dead_letter_note(name, count))


def _row(app: App, queue_name: str, *, is_paused: bool) -> dict[str, Any]:
    declared = app.topology.queue(queue_name)
    differences: tuple[str, ...] = ()
    try:
        status = app.transport.queue_status(queue_name)
        if declared is not None and status is not None:
            differences = app.transport.compare_topology(PartialTopology(queues=(declared,)))
        state = _state(status, is_paused=is_paused, differs=bool(differences))
    except QueueNotRunning:
        status, state = None, "down"
    return {
        "queue": queue_name,
        "type": str(declared.type) if declared else None,
        "ready": status.messages if status else None,
        "consumers": status.consumers if status else None,
        "state": state,
        "differences": list(differences),
    }


def _state(status: QueueStatus | None, *, is_paused: bool, differs: bool) -> str:
    if status is None:
        return "missing"
    return "paused" if is_paused else "differs" if differs else "ok"


def _dead_letters(app: App, names: tuple[str, ...]) -> dict[str, int] | None:
    try:
        return app.dead_letters.counts(names or None)
    except QueueNotRunning:
        return None
