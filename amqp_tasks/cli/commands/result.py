"""`amqp-tasks result`: the outcome of a task by its id."""

from __future__ import annotations

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option
from amqp_tasks.cli._outcome import print_outcome
from amqp_tasks.cli._values import Seconds, not_empty

__all__ = ("result",)

_TIMEOUT = 10.0


@click.command(
    cls=Command,
    short_help="Print a task's result by its id.",
    epilog=command_epilog(
        "amqp-tasks result 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11 --timeout 5",
        "amqp-tasks result 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11 --follow",
    ),
)
@click.argument("task_id", callback=not_empty)
@click.option(
    "--timeout",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="How long to wait for a task that has not finished. [default: 10; with --follow no limit]",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Show how far the task says it has got, until it has ended, whoever called it. With --json: a line for each event.",
)
@json_option
@global_options
@pass_globals
def result(state: Globals, task_id: str, timeout: float | None, follow: bool, as_json: bool) -> int:
    """Print the result of the task TASK_ID.

    Only a backend that stores results can answer: with rpc:// a result goes to the process that sent the task and to
    nobody else, so this command ends with exit code 7 and says so. With --follow anybody is told of a task that calls
    self.progress(): what it tells from now on, and how it ends.
    """
    if follow:
        from amqp_tasks.cli._follow import follow_task

        return follow_task(state, task_id, timeout, as_json=as_json)
    app = state.load_app()
    try:
        outcome = app.AsyncResult(task_id)
        outcome.get(timeout=_TIMEOUT if timeout is None else timeout, propagate=False)
        return print_outcome(outcome, as_json=as_json)
    finally:
        app.close()
