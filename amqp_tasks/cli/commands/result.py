"""`amqp-tasks result`: the outcome of a task by its id."""

from __future__ import annotations

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._outcome import print_outcome
from amqp_tasks.cli._output import json_option
from amqp_tasks.cli._values import not_empty

__all__ = ("result",)


@click.command(
    cls=Command,
    short_help="Print a task's result by its id.",
    epilog=command_epilog("amqp-tasks result 6e3f0a1c-5f0e-4b5a-9d27-0e3c1b8f2d11 --timeout 5"),
)
@click.argument("task_id", callback=not_empty)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a task that has not finished.",
)
@json_option
@global_options
@pass_globals
def result(state: Globals, task_id: str, timeout: float, as_json: bool) -> int:
    """Print the result of the task TASK_ID.

    Only a backend that stores results can answer: with rpc:// a result goes to the process that sent the task and to
    nobody else, so this command ends with exit code 7 and says so.
    """
    app = state.load_app()
    try:
        outcome = app.AsyncResult(task_id)
        outcome.get(timeout=timeout, propagate=False)
        return print_outcome(outcome, as_json=as_json)
    finally:
        app.close()
