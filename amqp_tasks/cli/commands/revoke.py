"""`amqp-tasks revoke` and `unrevoke`: have tasks not run, or let them again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option
from amqp_tasks.cli._output import print_json
from amqp_tasks.message._headers import is_table_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ("revoke", "unrevoke")


_task_ids = click.argument("task_ids", nargs=-1, metavar="[ID]...")
_stamp = click.option(
    "--stamp",
    "stamps",
    multiple=True,
    metavar="NAME=VALUE",
    help="All tasks with this stamp, also those that are called later. A value that can be read as a number or a truth value"
    " stands for that, too. Several times: any of them.",
)


@click.command(
    cls=Command,
    short_help="Have tasks not run, by their ids or stamps.",
    epilog=command_epilog(
        "amqp-tasks revoke 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11",
        "amqp-tasks revoke nightly-1 nightly-2 --terminate --signal SIGINT",
        "amqp-tasks revoke --stamp batch=2026-11-21",
    ),
)
@_task_ids
@_stamp
@click.option(
    "--terminate", is_flag=True, help="End those that run, with their process; only the pool prefork can."
)
@click.option(
    "--signal",
    metavar="NAME",
    help="With --terminate: what a task that has a handler for it gets to clean up.  [default: SIGTERM]",
)
@json_option
@global_options
@pass_globals
def revoke(
    state: Globals,
    task_ids: tuple[str, ...],
    stamps: tuple[str, ...],
    terminate: bool,
    signal: str | None,
    as_json: bool,
) -> None:
    """Have the tasks with these IDs or stamps not run, wherever they wait; those who wait for them get TaskRevokedError.

    All workers heed it, also those that are away now. A task that runs goes on, unless it is to be terminated.
    """
    meant = _meant(task_ids, stamps)
    if signal is not None and not terminate:
        raise click.UsageError("--signal says how running tasks are ended: add --terminate")
    signal = signal or "SIGTERM"
    with state.connected_app() as app:
        if task_ids:
            app.control.revoke(task_ids, terminate=terminate, signal=signal)
        if meant:
            app.control.revoke_by_stamped_headers(meant, terminate=terminate, signal=signal)
    _say(state, "revoked", task_ids, stamps, as_json=as_json)


@click.command(
    cls=Command,
    short_help="Let revoked tasks run again.",
    epilog=command_epilog(
        "amqp-tasks unrevoke 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11",
        "amqp-tasks unrevoke --stamp batch=2026-11-21",
    ),
)
@_task_ids
@_stamp
@json_option
@global_options
@pass_globals
def unrevoke(state: Globals, task_ids: tuple[str, ...], stamps: tuple[str, ...], as_json: bool) -> None:
    """Let the tasks with these IDs or stamps run after all. What a worker has refused already stays refused."""
    meant = _meant(task_ids, stamps)
    with state.connected_app() as app:
        if task_ids:
            app.control.unrevoke(task_ids)
        if meant:
            app.control.unrevoke_by_stamped_headers(meant)
    _say(state, "unrevoked", task_ids, stamps, as_json=as_json)


def _meant(task_ids: Sequence[str], stamps: Iterable[str]) -> Mapping[str, list[Any]]:
    """The stamps by name, with all values that are meant.

    Raises:
        click.UsageError: nothing is named, or a stamp without a name.
    """
    found: dict[str, list[Any]] = {}
    for stamp in stamps:
        name, is_given, value = stamp.partition("=")
        if not (name and is_given):
            raise click.UsageError(f"--stamp takes NAME=VALUE, got {stamp!r:.80}")
        found.setdefault(name, []).extend(_readings(value))
    if not (task_ids or found):
        raise click.UsageError("which tasks? Give their IDs, or --stamp NAME=VALUE")
    return found


def _readings(value: str) -> list[Any]:
    """The text, and the number or truth value that it may stand for, unless no stamp can be that (infinity, 40 digits)."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return [value]
    return [value, read] if isinstance(read, bool | int | float) and is_table_value(read) else [value]


def _say(state: Globals, what: str, task_ids: Sequence[str], stamps: Sequence[str], *, as_json: bool) -> None:
    ids, named = list(dict.fromkeys(task_ids)), list(dict.fromkeys(stamps))
    if as_json:
        print_json({what: ids} | ({"stamps": named} if named else {}))
        return
    tasks = [f"{len(ids)} {'task' if len(ids) == 1 else 'tasks'}"] if ids else []
    state.note(f"{what}: {', '.join([*tasks, *(f'all with {each}' for each in named)])}")
