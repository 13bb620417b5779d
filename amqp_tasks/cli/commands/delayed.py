"""`amqp-tasks delayed`: what waits in the broker for its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import count_option, json_option
from amqp_tasks.cli._output import print_json, print_table

if TYPE_CHECKING:
    from amqp_tasks.message import DelayedTask

__all__ = ("delayed",)

_SHOWN = 100


@click.command(
    cls=Command,
    short_help="List tasks that wait for their countdown, eta or retry.",
    epilog=command_epilog("amqp-tasks delayed", "amqp-tasks delayed -t 'proj.mail_*' --limit 20 --json"),
)
@click.argument("ids", nargs=-1)
@click.option("-t", "--task", metavar="NAME", help="Only tasks of this name, which may have * and ?.")
@click.option("-Q", "--queue", metavar="NAME", help="Only those that go to this queue.")
@count_option("--limit", "Print at most so many.", default=_SHOWN)
@json_option
@global_options
@pass_globals
def delayed(
    state: Globals, ids: tuple[str, ...], task: str | None, queue: str | None, limit: int, as_json: bool
) -> None:
    """List the tasks that wait in the broker for their time, the next one first; or those with IDS.

    Needs the setting task_delayed_index in callers and workers. `amqp-tasks revoke ID` has one not run.
    """
    with state.connected_app() as app:
        found = app.delayed.find(ids or None, task=task, queue=queue, limit=limit)
    if as_json:
        print_json([_data(each) for each in found])
    elif found:
        headings = ("due", "id", "task", "queue", "retries", "state")
        rows = [{**_data(each), "due": f"{each.due:%Y-%m-%d %H:%M:%S}Z"} for each in found]
        print_table(headings, [[row[heading] for heading in headings] for row in rows])
    else:
        state.note("no delayed tasks")
    if len(found) == limit:
        state.note(f"stopped at --limit {limit}")


def _data(each: DelayedTask) -> dict[str, Any]:
    return {
        "id": each.id,
        "task": each.task,
        "due": each.due.isoformat(),
        "queue": each.routing_key if not each.exchange else f"{each.exchange}/{each.routing_key}",
        "retries": each.retries,
        "state": "revoked" if each.is_revoked else "waits",
    }
