"""`amqp-tasks topology migrate`: bring a queue that exists to what the app declares."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option, management_option
from amqp_tasks.cli._output import print_json, print_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqp_tasks.app import MigrationPlan, MigrationProgress
from amqp_tasks.cli._values import Seconds

__all__ = ("migrate",)


@click.command(
    cls=Command,
    short_help="Give a queue that exists the arguments or the type declared now.",
    epilog=command_epilog(
        "amqp-tasks topology migrate mail --dry-run",
        "amqp-tasks topology migrate mail --to-type classic --json",
    ),
)
@click.argument("queue")
@click.option(
    "--to-type",
    type=click.Choice(["quorum", "classic"]),
    help="In place of the type that the app declares. [default: as declared]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@management_option(
    "which knows bindings that the app does not.", default="only the app's own bindings are kept"
)
@click.option(
    "--quiet-time",
    type=Seconds(min=0.5, max=3600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Swap the queue when nothing has arrived for so long.",
)
@click.option(
    "--patience",
    type=Seconds(min=0, max=86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for that, then give up.",
)
@json_option
@global_options
@pass_globals
def migrate(
    state: Globals,
    queue: str,
    to_type: str | None,
    dry_run: bool,
    management: str | None,
    quiet_time: float,
    patience: float,
    as_json: bool,
) -> int:
    """Bring QUEUE to the type and arguments that the app declares now; its messages stay.

    They move to `QUEUE.migrating`, the queue is declared anew, and they move back, each confirmed before it is removed. No worker
    may consume QUEUE until it is swapped, and producers that send to it by name must pause for --quiet-time. Ended at any
    moment, run it again: it goes on.
    """
    with state.connected_app() as app:
        migration = app.migration(
            queue, to_type=to_type, management_url=management, quiet=quiet_time, patience=patience
        )
        plan = migration.plan()
        if not as_json:
            print_lines("\n".join(_lines(plan)))
        if dry_run:
            if as_json:
                print_json(_as_data(plan))
            return ExitCode.OK
        with _shown(state, is_quiet=as_json) as show:
            done = migration.run(show)
    if as_json:
        print_json({**_as_data(plan), "moved_out": done.moved_out, "moved": done.moved})
    elif plan.next_step != "done":
        click.echo(f"migrated, {done.moved} messages moved")
    return ExitCode.OK


def _lines(plan: MigrationPlan) -> Generator[str]:
    if plan.next_step == "done":
        yield f"queue {plan.queue_name!r} is as declared: nothing to do"
        return
    yield from plan.differences
    if plan.messages is not None:
        yield f"{plan.messages} messages in {plan.queue_name}, {plan.consumers} consumers"
    if plan.waiting is not None:
        yield f"an interrupted migration goes on; {plan.waiting} messages wait in {plan.queue_name}.migrating"
    for each in plan.bindings:
        yield f"binding kept: {each.source} --{each.routing_key or '(no key)'}--> {plan.queue_name}"
    if not plan.knows_all_bindings:
        yield "bindings that others made are not known and not kept; give --management to keep them"


def _as_data(plan: MigrationPlan) -> dict[str, Any]:
    return {
        **asdict(plan),
        "bindings": [{"source": each.source, "routing_key": each.routing_key} for each in plan.bindings],
    }


@contextmanager
def _shown(state: Globals, *, is_quiet: bool) -> Generator[Callable[[MigrationProgress], None]]:
    """A bar on a terminal, else a line for each step; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(
        stderr=True, quiet=state.quiet or is_quiet, no_color=True if state.color is False else None
    )
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console)
    steps: dict[str, Any] = {}

    def show(progress: MigrationProgress) -> None:
        step = str(progress.step)
        if step not in steps:
            steps[step] = bar.add_task(step, total=None) if console.is_terminal else None
            if not console.is_terminal:
                console.print(step, markup=False)
        if steps[step] is not None:
            bar.update(steps[step], completed=progress.moved, total=(progress.moved + progress.left) or None)

    with bar if console.is_terminal else _nothing():
        yield show


@contextmanager
def _nothing() -> Generator[None]:
    yield
