"""`amqp-tasks account`: where everything is that was accepted, and whether something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.app._account import account_of
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option, management_option
from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.app._account import Account

__all__ = ("account",)


@click.command(
    cls=Command,
    short_help="Count what was accepted, what has ended and what has not.",
    epilog=command_epilog(
        "export AMQP_TASKS_MANAGEMENT_URL=http://guest:guest@localhost:15672",
        "amqp-tasks account",
        "amqp-tasks account --json",
    ),
)
@management_option(
    "which knows what workers hold, what waits for its time, and queues that only tasks or calls name.",
    default="none of that is counted",
)
@json_option
@global_options
@pass_globals
def account(state: Globals, management: str | None, as_json: bool) -> None:
    """Count the tasks that were accepted, that have ended, and that are in each place: queues, workers, the delay, dead letters.

    What was accepted has ended (done, failed, revoked, expired) or is somewhere: the difference is what is missing. Each process tells of its
    counts a second after its first task, then less and less often, at last each minute, and when it ends; what workers hold is some seconds
    old. So the difference is exact where nothing has moved for a minute and no process was killed. Queues are the app's, and with
    --management all in the virtual host that have dead letters beside them.
    """
    with state.connected_app() as app:
        found = account_of(app, management)
    if as_json:
        print_json(_as_data(found))
        return
    print_table(("place", "messages"), _rows(found))
    if found.total is None:
        state.note(
            "what workers hold, what waits for its time, and what waits in queues that only tasks or calls name is not counted: give --management"
        )
    for note in _notes(found):
        state.note(note)


def _notes(account: Account) -> Iterator[str]:
    for name, count in (account.uncounted or {}).items():
        yield f"{count} messages in {printable(name)} are not counted: neither does the app name this queue, nor has it dead letters beside it"
    if account.counts is None:
        yield "accepted and ended tasks are not counted: no worker or `amqp-tasks topology apply` has declared the account"
        return
    if account.unfinished:
        yield (
            f"{account.unfinished} processes have not said their last word: they live, or were killed with at most a minute of counts"
        )
    if account.counts["unknown"]:
        yield f"{account.counts['unknown']} calls ended with SendUnknown: those that were stored are missing below zero"
    if not account.is_whole:
        yield "the oldest reports have left the account: what is counted is the least, and no difference is told"


def _as_data(account: Account) -> dict[str, Any]:
    return {
        "waiting": dict(account.waiting),
        "held": None if account.held is None else dict(account.held),
        "delayed": account.delayed,
        "stray": account.stray,
        "uncounted": None if account.uncounted is None else dict(account.uncounted),
        "dead": dict(account.dead),
        "total": account.total,
        "counts": None if account.counts is None else dict(account.counts),
        "unfinished": account.unfinished,
        "is_whole": account.is_whole,
        "difference": account.difference,
    }


def _rows(account: Account) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        (f"waiting in {name}", count) for name, count in account.waiting.items()
    ]
    rows += [(f"held of {name}", count) for name, count in (account.held or {}).items() if count]
    rows += [(f"dead in {name}", count) for name, count in account.dead.items()]
    if account.total is not None:
        rows += [
            ("waiting for their time", account.delayed),
            ("due, without a queue", account.stray),
            ("not ended", account.total),
        ]
    if account.counts is not None:
        rows += [(f"{kind}, as counted", count) for kind, count in account.counts.items()]
    if account.difference is not None:
        rows.append(("missing", account.difference))
    return rows
