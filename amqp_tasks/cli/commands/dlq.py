"""`amqp-tasks dlq`: look at dead letters, put them back, remove them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import click

from amqp_tasks.app import App, DeadLetterFilter
from amqp_tasks.app._look import MAX_HELD
from amqp_tasks.cli._conditions import where
from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Globals, Group, global_options, import_tasks, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._letters import HEADINGS, as_data, as_lines, as_row, without_sensitive_body
from amqp_tasks.cli._options import count_option, json_option, need_terminal, queues_option, yes_option
from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.message import DeadLetter, printable
from amqp_tasks.settings import mask_secrets

__all__ = ("dlq",)

_SHOWN, _SHOWN_WHOLE = 100, 10

F = TypeVar("F", bound=Callable[..., object])


def _selection(command: F) -> F:
    """Add `-Q` and `--where`."""
    command = click.option(
        "-w",
        "--where",
        callback=where,
        multiple=True,
        metavar="KEY=VALUE",
        help="Only those that fit; repeatable. id, task, reason, error (exception class): a glob, of several for one key any; "
        "older, newer: than 90s, 10m, 2h, 3d or 1w. [default: all]",
    )(command)
    return queues_option("Task queues whose dead letters are meant. [default: all queues of the app]")(
        command
    )


def _limit(default: int | None, *, told: str = "no limit") -> Callable[[F], F]:
    shown = "" if default else f" [default: {told}]"
    return count_option("--limit", f"At most so many, oldest first.{shown}", default=default)


@click.group(cls=Group, short_help="Look at dead letters, put them back or remove them.")
@global_options
def dlq() -> None:
    """Look after dead letters: messages in `<queue>.dead`, each with the reason why it lies there."""


@dlq.command(
    "list",
    epilog=command_epilog(
        "amqp-tasks dlq list", "amqp-tasks dlq list -Q hipri -w reason=failed -w older=2h --json"
    ),
)
@_selection
@_limit(_SHOWN)
@json_option
@global_options
@pass_globals
def list_(
    state: Globals, queues: tuple[str, ...] | None, where: DeadLetterFilter, limit: int, as_json: bool
) -> None:
    """Print dead letters, a line each. They stay where they are."""
    with state.connected_app() as app:
        letters = app.dead_letters.find(queues, where, limit=limit)
    if as_json:
        print_json([as_data(letter) for letter in letters])
    elif letters:
        print_table(HEADINGS, [as_row(letter) for letter in letters])
    else:
        state.note("no dead letters")
    if len(letters) == limit:
        state.note(f"stopped at --limit {limit}")


@dlq.command(
    short_help="Print all that is known of dead letters.",
    epilog=command_epilog(
        "amqp-tasks dlq show 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11", "amqp-tasks dlq show --limit 1"
    ),
)
@click.argument("ids", nargs=-1)
@_selection
@_limit(None, told=f"{_SHOWN_WHOLE}; of IDS no limit")
@json_option
@global_options
@pass_globals
def show(
    state: Globals,
    ids: tuple[str, ...],
    queues: tuple[str, ...] | None,
    where: DeadLetterFilter,
    limit: int | None,
    as_json: bool,
) -> int:
    """Print all that is known of dead letters: those with IDS, or those that fit. They stay where they are.

    IDS that are not found are named, and the exit code is 1. A body with sensitive arguments is not shown, whether they are
    the task's own or those of what follows it in a workflow.
    """
    chosen = _narrowed(where, ids)
    if limit is None and not ids:
        limit = _SHOWN_WHOLE
    with state.connected_app() as app:
        import_tasks(app)  # they say which arguments are sensitive
        found = app.dead_letters.find(queues, chosen, limit=limit, bodies=True)
        letters = [without_sensitive_body(letter, app.tasks) for letter in found]
    if as_json:
        print_json([as_data(letter) for letter in letters])
    for letter in letters if not as_json else ():
        click.echo("\n".join(as_lines(letter)) + "\n")
    missing = _missing(chosen, found, limit) if ids else ()
    _tell_missing(missing)
    if not letters and not ids:
        state.note("no such dead letter")
    return ExitCode.OK if letters and not missing else ExitCode.FAILED


@dlq.command(
    short_help="Put dead letters back into the queues they come from.",
    epilog=command_epilog(
        "amqp-tasks dlq requeue 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11",
        "amqp-tasks dlq requeue -Q hipri -w task=proj.send_* -w reason=failed",
    ),
)
@click.argument("ids", nargs=-1)
@_selection
@_limit(None)
@json_option
@global_options
@pass_globals
def requeue(
    state: Globals,
    ids: tuple[str, ...],
    queues: tuple[str, ...] | None,
    where: DeadLetterFilter,
    limit: int | None,
    as_json: bool,
) -> int:
    """Put dead letters back into the queues they come from: those with IDS, or those that fit.

    Each is published as it was, with the same id, and removed when the broker has confirmed it: what ends this command
    half-way leaves a duplicate, never a loss. A task that is still broken comes back. IDS that are not found are named, and
    the exit code is 1, as for those that could not be put back.
    """
    with state.connected_app() as app:
        done = app.dead_letters.requeue(queues, _narrowed(where, ids), limit=limit)
    failures = [
        {"id": as_data(letter)["id"], "queue": letter.queue_name, "error": mask_secrets(str(error))}
        for letter, error in done.failures
    ]
    missing = done.missing if ids else ()
    if as_json:
        print_json({"requeued": done.count, "failed": failures, "missing": missing})
    else:
        click.echo(f"{done.count} requeued")
        for failure in failures:
            click.echo(
                printable(f"not requeued: {failure['id']} to {failure['queue']}: {failure['error']}", 1024),
                err=True,
            )
        _tell_missing(missing)
    return ExitCode.FAILED if failures or missing else ExitCode.OK


@dlq.command(
    epilog=command_epilog("amqp-tasks dlq purge -w older=30d", "amqp-tasks dlq purge -Q hipri --yes --json")
)
@click.argument("ids", nargs=-1)
@_selection
@_limit(None)
@yes_option()
@json_option
@global_options
@pass_globals
def purge(
    state: Globals,
    ids: tuple[str, ...],
    queues: tuple[str, ...] | None,
    where: DeadLetterFilter,
    limit: int | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove dead letters for good: those with IDS, or those that fit.

    IDS that are not found are named, and the exit code is 1.
    """
    if not yes:
        need_terminal("purge", "dead letters")
    chosen = _narrowed(where, ids)
    with state.connected_app() as app:
        if not yes and not _confirmed(app, queues, chosen, limit):
            click.echo("nothing was removed", err=True)
            return ExitCode.FAILED
        if ids:
            removed = list(app.dead_letters.removed(queues, chosen, limit=limit))
            count, missing = len(removed), _missing(chosen, removed, limit)
        else:
            count, missing = app.dead_letters.purge(queues, chosen, limit=limit), ()
    if as_json:
        print_json({"purged": count, "missing": missing})
    else:
        click.echo(f"{count} removed")
        _tell_missing(missing)
    return ExitCode.FAILED if missing else ExitCode.OK


def _confirmed(app: App, queues: tuple[str, ...] | None, chosen: DeadLetterFilter, limit: int | None) -> bool:
    counts = app.dead_letters.counts(queues)
    if chosen.is_everything and limit is None:
        return _asked(f"{sum(counts.values())}", is_one=sum(counts.values()) == 1)
    count = len(app.dead_letters.find(queues, chosen, limit=limit))
    # A look sees so many of a queue; a purge makes room for the next as it removes.
    is_cut = max(counts.values(), default=0) > MAX_HELD and (limit is None or count < limit)
    return _asked(f"{count} or more" if is_cut else f"{count}", is_one=count == 1 and not is_cut)


def _asked(count: str, *, is_one: bool) -> bool:
    return click.confirm(f"Remove {count} dead letter{'' if is_one else 's'} for good?", err=True)


def _missing(chosen: DeadLetterFilter, found: Sequence[DeadLetter], limit: int | None) -> tuple[str, ...]:
    """What the filter's ids did not find; not known where the limit ended the look."""
    return () if len(found) == limit else chosen.missing({letter.id for letter in found})


def _tell_missing(missing: tuple[str, ...]) -> None:
    for each in missing:
        click.echo(printable(f"not found: {each}", 1024), err=True)


def _narrowed(where: DeadLetterFilter, ids: tuple[str, ...]) -> DeadLetterFilter:
    if ids and where.ids:
        raise click.UsageError("give ids as arguments or as --where id=…, not both")
    return replace(where, ids=ids) if ids else where
