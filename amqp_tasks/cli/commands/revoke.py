"""`amqp-tasks revoke` and `unrevoke`: have tasks not run, or let them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("revoke", "unrevoke")


@click.command(
    cls=Command,
    short_help="Have tasks not run, by their ids.",
    epilog=command_epilog(
        "amqp-tasks revoke 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11",
        "amqp-tasks revoke nightly-1 nightly-2 --terminate --signal SIGINT",
    ),
)
@click.argument("task_ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--terminate", is_flag=True, help="End those that run, with their process; only the pool prefork can."
)
@click.option(
    "--signal",
    default="SIGTERM",
    show_default=True,
    metavar="NAME",
    help="With --terminate: what a task that has a handler for it gets to clean up.",
)
@json_option
@global_options
@pass_globals
def revoke(state: Globals, task_ids: tuple[str, ...], terminate: bool, signal: str, as_json: bool) -> None:
    """Have the tasks with these IDs not run, wherever they wait; those who wait for them get TaskRevokedError.

    All workers heed it, also those that are away now. A task that runs goes on, unless it is to be terminated.
    """
    with state.connected_app() as app:
        app.control.revoke(task_ids, terminate=terminate, signal=signal)
    _say(state, "revoked", task_ids, as_json=as_json)


@click.command(
    cls=Command,
    short_help="Let revoked tasks run again.",
    epilog=command_epilog("amqp-tasks unrevoke 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11"),
)
@click.argument("task_ids", nargs=-1, required=True, metavar="ID...")
@json_option
@global_options
@pass_globals
def unrevoke(state: Globals, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Let the tasks with these IDs run after all. What a worker has refused already stays refused."""
    with state.connected_app() as app:
        app.control.unrevoke(task_ids)
    _say(state, "unrevoked", task_ids, as_json=as_json)


def _say(state: Globals, what: str, task_ids: Sequence[str], *, as_json: bool) -> None:
    ids = list(dict.fromkeys(task_ids))
    if as_json:
        print_json({what: ids})
    else:
        state.note(f"{what}: {len(ids)} {'task' if len(ids) == 1 else 'tasks'}")
