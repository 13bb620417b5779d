"""`amqp-tasks workflow`: failed workflows of named steps: look at them, have them go on, give them up."""

from __future__ import annotations

import click

from amqp_tasks.app import FailedStep
from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Globals, Group, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._letters import as_data, as_row
from amqp_tasks.cli._options import json_option, need_terminal, queues_option, yes_option
from amqp_tasks.cli._output import print_json, print_table
from amqp_tasks.message import printable
from amqp_tasks.settings import mask_secrets

__all__ = ("workflow",)

_ID = "6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11"
_HEADINGS = ("workflow", "step", "task", "queue", "reason", "attempts", "set aside", "error")

_NOR_LEFT = ", and nothing that was found waits for one: a workflow whose id is in use runs"

_queues = queues_option("Task queues whose dead letters are looked at. [default: all queues of the app]")


@click.group(cls=Group, short_help="Look at failed workflows, resume them or give them up.")
@global_options
def workflow() -> None:
    """Look after failed workflows of named steps. Their failed steps lie in the dead letters; what needs these waits."""


@workflow.command(
    "list", epilog=command_epilog("amqp-tasks workflow list", "amqp-tasks workflow list --json")
)
@_queues
@json_option
@global_options
@pass_globals
def list_(state: Globals, queues: tuple[str, ...] | None, as_json: bool) -> None:
    """Print the failed steps of all workflows, a line each. They stay where they are."""
    with state.connected_app() as app:
        found = app.workflows.failed_steps(queues=queues)
    _print(state, found, as_json)


@workflow.command(epilog=command_epilog(f"amqp-tasks workflow show {_ID}"))
@click.argument("workflow_id", metavar="ID")
@_queues
@json_option
@global_options
@pass_globals
def show(state: Globals, workflow_id: str, queues: tuple[str, ...] | None, as_json: bool) -> int:
    """Print the failed steps of a workflow. Of steps that have ended well, wait or run, the broker tells nothing."""
    with state.connected_app() as app:
        found = app.workflows.failed_steps(workflow_id, queues=queues)
    _print(state, found, as_json)
    return ExitCode.OK if found else ExitCode.FAILED


@workflow.command(
    short_help="Run the failed steps of a workflow once more.",
    epilog=command_epilog(
        f"amqp-tasks workflow resume {_ID}", f"amqp-tasks workflow resume {_ID} --step fetch"
    ),
)
@click.argument("workflow_id", metavar="ID")
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME",
    help="Only this step; repeatable. [default: all that failed]",
)
@_queues
@json_option
@global_options
@pass_globals
def resume(
    state: Globals,
    workflow_id: str,
    steps: tuple[str, ...],
    queues: tuple[str, ...] | None,
    as_json: bool,
) -> int:
    """Run the failed steps of a workflow once more, and then what needs them; steps that have ended well are not run again.

    Each is published as it was, with the same id, and removed from the dead letters when the broker has confirmed it: what ends
    this command half-way leaves a duplicate, never a loss. A step that is still broken comes back.
    """
    with state.connected_app() as app:
        done = app.workflows.resume(workflow_id, steps=steps or None, queues=queues)
    failures = [
        {"id": as_data(letter)["id"], "queue": letter.queue_name, "error": mask_secrets(str(error))}
        for letter, error in done.failures
    ]
    if as_json:
        print_json({"resumed": done.count, "failed": failures})
    else:
        click.echo(f"{done.count} step{'' if done.count == 1 else 's'} resumed")
    for failure in failures if not as_json else ():
        click.echo(
            printable(f"not resumed: {failure['id']} to {failure['queue']}: {failure['error']}", 1024),
            err=True,
        )
    if not done.count and not failures:
        state.note("no such failed step lies in the dead letters of these queues")
    return ExitCode.OK if done.count and not failures else ExitCode.FAILED


@workflow.command(
    short_help="Give a failed workflow up.",
    epilog=command_epilog(f"amqp-tasks workflow discard {_ID} --yes"),
)
@click.argument("workflow_id", metavar="ID")
@_queues
@yes_option()
@json_option
@global_options
@pass_globals
def discard(
    state: Globals, workflow_id: str, queues: tuple[str, ...] | None, yes: bool, as_json: bool
) -> int:
    """Give a failed workflow up: remove its failed steps, and what waits for them, for good.

    Without -Q that goes for a workflow, too, of which only this is left, as its dead letters were purged.
    """
    if not yes:
        need_terminal("discard", "steps")
    with state.connected_app() as app:
        if not yes:
            count = len(app.workflows.failed_steps(workflow_id, queues=queues))
            question = f"Remove {count} failed step{'' if count == 1 else 's'} for good?"
            if not count and queues is None:
                question = "No failed step lies in the dead letters of this app's queues (others: -Q). Remove what waits for one, for good?"
            if not click.confirm(question, err=True):
                click.echo("nothing was removed", err=True)
                return ExitCode.FAILED
        count = app.workflows.discard(workflow_id, queues=queues)
    if as_json:
        print_json({"discarded": count})
    else:
        click.echo(f"{count} removed")
    if not count:
        state.note(
            "no such failed step lies in the dead letters of these queues" + _NOR_LEFT * (queues is None)
        )
    return ExitCode.OK if count else ExitCode.FAILED


def _print(state: Globals, found: list[FailedStep], as_json: bool) -> None:
    if as_json:
        print_json(
            [{"workflow": each.workflow_id, "step": each.step, **as_data(each.letter)} for each in found]
        )
    elif found:
        rows = ((each.workflow_id, each.step, *as_row(each.letter)[1:]) for each in found)
        print_table(_HEADINGS, list(rows))
    else:
        state.note("no failed steps in the dead letters of these queues")
