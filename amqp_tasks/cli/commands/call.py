"""`amqp-tasks call`: send one task by name."""

from __future__ import annotations

from typing import Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._outcome import print_outcome, print_sent
from amqp_tasks.cli._output import json_option
from amqp_tasks.cli._values import json_list, json_object, point_in_time

__all__ = ("call",)


@click.command(
    cls=Command,
    short_help="Send a task by name.",
    epilog=command_epilog(
        "amqp-tasks call proj.add --args '[2, 2]'",
        'amqp-tasks call proj.add --kwargs \'{"x": 2, "y": 2}\' --queue hipri --wait --timeout 10',
    ),
)
@click.argument("name")
@click.option(
    "-a",
    "--args",
    "args",
    callback=json_list,
    default="[]",
    show_default=True,
    metavar="JSON",
    help="Positional arguments, a JSON list.",
)
@click.option(
    "-k",
    "--kwargs",
    "kwargs",
    callback=json_object,
    default="{}",
    show_default=True,
    metavar="JSON",
    help="Keyword arguments, a JSON object.",
)
@click.option("--queue", help="Queue to send to. [default: as task_routes says]")
@click.option("--exchange", help="Exchange to publish to, with --routing-key. [default: the route's]")
@click.option("--routing-key", help="Routing key. [default: the route's]")
@click.option(
    "--priority",
    type=click.IntRange(0, 255),
    help="Message priority, larger first. [default: task_default_priority]",
)
@click.option(
    "--countdown",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Not run before so many seconds have passed. [default: 0]",
)
@click.option(
    "--eta",
    callback=point_in_time,
    metavar="TIME",
    help="Not run before this time, ISO 8601; without an offset in the app's timezone. [default: at once]",
)
@click.option(
    "--expires",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Not run if not started by then. [default: never]",
)
@click.option("--task-id", help="Id of the task; the same id again after exit code 5. [default: a new UUID]")
@click.option(
    "--serializer", help="Serializer of the arguments. [env: AMQP_TASKS_TASK_SERIALIZER; default: json]"
)
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long --wait waits.",
)
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
    timeout: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Send the task NAME and print its id, or with --wait its result.

    The task's code is not needed here: only its name, and the broker.
    """
    given = {key: value for key, value in options.items() if value is not None}
    with state.connected_app() as app:
        sent = app.send_task(name, args=args, kwargs=kwargs, ignore_result=not wait, **given)
        if not wait:
            print_sent(sent.id, as_json=as_json)
            return ExitCode.OK
        sent.get(timeout=timeout, propagate=False)
        return print_outcome(sent, as_json=as_json)
