"""`amqp-tasks pause` and `amqp-tasks resume`: have all workers leave queues alone, and go on with them."""

from __future__ import annotations

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog

__all__ = ("pause", "resume")


@click.command(
    cls=Command,
    short_help="Have workers run nothing more of queues.",
    epilog=command_epilog("amqp-tasks pause lopri", "amqp-tasks pause mails reports"),
)
@click.argument("names", nargs=-1, required=True)
@global_options
@pass_globals
def pause(state: Globals, names: tuple[str, ...]) -> None:
    """Have all workers run nothing more of the queues NAMES, now and after restarts, until they are resumed.

    What runs ends as usual, what workers had fetched goes back, and calls are accepted and wait.
    """
    with state.connected_app() as app:
        app.control.pause(names)


@click.command(
    cls=Command,
    short_help="Have workers go on with paused queues.",
    epilog=command_epilog("amqp-tasks resume lopri"),
)
@click.argument("names", nargs=-1, required=True)
@global_options
@pass_globals
def resume(state: Globals, names: tuple[str, ...]) -> None:
    """Have all workers run tasks of the queues NAMES again. A queue that is not paused is fine."""
    with state.connected_app() as app:
        app.control.resume(names)
