"""`amqp-tasks demo`: see two queues at work on real files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import count_option, json_option, seconds_option
from amqp_tasks.cli._output import print_json

__all__ = ("demo",)


@click.command(
    cls=Command,
    short_help="See two queues at work on real files.",
    epilog=command_epilog(
        "amqp-tasks demo",
        "amqp-tasks demo --path .",
        "amqp-tasks demo --json",
    ),
)
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory to index. [default: the standard library of this Python]",
)
@count_option("--max-files", "Index at most so many files.", default=5000)
@seconds_option("--timeout", "Give up when the work takes longer.", default=120.0)
@json_option
@global_options
@pass_globals
def demo(state: Globals, path: Path | None, max_files: int, timeout: float, as_json: bool) -> None:
    """Index a directory on two queues, and show what the second one is good for.

    Every file is a task in `lopri`; while that backlog stands, look-ups go to `hipri`, and the same ones to `lopri`
    for comparison. The broker is --broker, else a RabbitMQ on this machine, else one in a container, else a private
    node of an installed rabbitmq-server, else the embedded memory://. Queues of its own are used and removed.
    """
    from rich.console import Console

    from amqp_tasks.cli.demo import DemoOptions, run_demo
    from amqp_tasks.cli.demo.screen import Screen

    broker = state.broker or os.environ.get("AMQP_TASKS_BROKER_URL")
    options = DemoOptions(path=path, broker=broker, max_files=max_files, timeout=timeout)
    # With --json, what is said on the way goes to stderr: stdout is data.
    console = Console(
        stderr=as_json, quiet=state.quiet and as_json, no_color=True if state.color is False else None
    )
    with Screen(console) as screen:
        report = run_demo(options, screen)
    if as_json:
        print_json(asdict(report))
    else:
        screen.table(report)
