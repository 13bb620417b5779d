"""`amqp-tasks call`: send one task by name."""

from __future__ import annotations

from typing import Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import call_options, json_option, seconds_option
from amqp_tasks.cli._outcome import print_outcome, print_sent
from amqp_tasks.cli._values import Seconds, point_in_time

__all__ = ("call",)

_TIMEOUT = 60.0


@click.command(
    cls=Command,
    short_help="Send a task by name.",
    epilog=command_epilog(
        "amqp-tasks call proj.add --args '[2, 2]'",
        'amqp-tasks call proj.add --kwargs \'{"x": 2, "y": 2}\' --queue hipri --wait',
    ),
)
@click.argument("name")
@call_options
@click.option(
    "--priority",
    type=click.IntRange(0, 255),
    help="Message priority, larger first. [default: task_default_priority]",
)
@click.option(
    "--countdown",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Not run before so many seconds have passed. [default: 0]",
)
@click.option(
    "--eta",
    callback=point_in_time,
    metavar="TIME",
    help="Not run before this time, ISO 8601; without an offset in the app's timezone. [default: at once]",
)
@seconds_option("--expires", "Not run if not started by then. [default: never]")
@click.option("--task-id", help="Id of the task; the same id again after exit code 5. [default: a new UUID]")
@click.option(
    "--serializer", help="Serializer of the arguments. [env: AMQP_TASKS_TASK_SERIALIZER; default: json]"
)
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@seconds_option("--timeout", f"With --wait: how long. [default: {_TIMEOUT:g}]")
@json_option
@global_options
@pass_globals
def call(
    state: Globals,
    /,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Send the task NAME and print its id, or with --wait its result.

    The task's code is not needed here: only its name, and the broker.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says how long to wait for the result: add --wait, or leave it out")
    given = {key: value for key, value in options.items() if value is not None}
    with state.connected_app() as app:
        sent = app.send_task(name, args=args, kwargs=kwargs, ignore_result=not wait, **given)
        if not wait:
            print_sent(sent.id, as_json=as_json)
            return ExitCode.OK
        sent.get(timeout=_TIMEOUT if timeout is None else timeout, propagate=False)
        return print_outcome(sent, as_json=as_json)
