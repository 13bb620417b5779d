"""The root command, and the one place where an exception becomes a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from amqp_routing import RoutingError
from amqp_tasks.cli._celery import celery_option_refusal
from amqp_tasks.cli._exit import ExitCode, exit_code_for
from amqp_tasks.cli._globals import Globals, global_options
from amqp_tasks.cli._help import epilog
from amqp_tasks.cli._lazy import LazyGroup
from amqp_tasks.cli._streams import give_up, make_streams_usable
from amqp_tasks.errors import AmqpTasksError
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("main", "root")

_MAX_LINE = 10_000
_COMMANDS = "amqp_tasks.cli.commands"
_WRITERS = ("click.utils", "rich.console")


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    lazy={
        "worker": f"{_COMMANDS}.worker:worker",
        "call": f"{_COMMANDS}.call:call",
        "result": f"{_COMMANDS}.result:result",
        "queues": f"{_COMMANDS}.queues:queues",
        "account": f"{_COMMANDS}.account:account",
        "delayed": f"{_COMMANDS}.delayed:delayed",
        "pause": f"{_COMMANDS}.pause:pause",
        "resume": f"{_COMMANDS}.pause:resume",
        "topology": f"{_COMMANDS}.topology:topology",
        "check": f"{_COMMANDS}.check:check",
        "purge": f"{_COMMANDS}.purge:purge",
        "dlq": f"{_COMMANDS}.dlq:dlq",
        "workflow": f"{_COMMANDS}.workflow:workflow",
        "revoke": f"{_COMMANDS}.revoke:revoke",
        "unrevoke": f"{_COMMANDS}.revoke:unrevoke",
        "config": f"{_COMMANDS}.config:config",
        "health": f"{_COMMANDS}.health:health",
        "report": f"{_COMMANDS}.report:report",
        "demo": f"{_COMMANDS}.demo:demo",
        "completion": f"{_COMMANDS}.completion:completion",
    },
    epilog=epilog(
        "amqp-tasks -A proj worker -Q hipri,lopri -c 4",
        "amqp-tasks call proj.add --args '[2, 2]' --wait",
        "amqp-tasks queues --json",
        "amqp-tasks demo",
    ),
)
@global_options
def root() -> None:
    """Distributed tasks on RabbitMQ."""


def main(argv: Sequence[str] | None = None, *, app: App | None = None) -> int:
    """Run the command line and return its exit code; an error ends as one line on stderr.

    Args:
        argv: the arguments without the program's name; `None` takes the process's own.
        app: the app to use when no `-A` is given (`app.start()`).
    """
    make_streams_usable()
    _quiet_libraries()
    state = Globals(app=app)
    try:
        return _run(list(sys.argv[1:] if argv is None else argv), state)
    except OSError as exc:
        if not _is_of_output(exc):
            raise
        give_up(sys.stdout)
        _echo_error(f"cannot write the output: {exc.strerror}", state)
        return ExitCode.FAILED


def _run(arguments: list[str], state: Globals) -> int:
    try:
        returned = root.main(
            args=arguments,
            prog_name="amqp-tasks",
            standalone_mode=False,
            obj=state,
            color=_color_from_environment(),
        )
    except click.Abort:
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return ExitCode.USAGE
    except click.ClickException as exc:
        return _report_usage(exc, state)
    except (AmqpTasksError, RoutingError) as exc:
        return _report(exc, state)
    return returned if isinstance(returned, int) else ExitCode.OK


def _is_of_output(error: OSError) -> bool:
    """Whether it comes from `click.echo` or a console of rich, by which all commands write."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") in _WRITERS


def _quiet_libraries() -> None:
    # Without any handler, logging prints warnings bare: what was logged on the way to an error would be said twice.
    # The worker's own handler is not affected.
    for name in ("amqp_tasks", "pika"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def _color_from_environment() -> bool | None:
    # https://no-color.org; None leaves it to click, which colours a terminal only.
    return False if os.environ.get("NO_COLOR") else None


def _report_usage(error: click.ClickException, state: Globals) -> ExitCode:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "amqp-tasks"
    # click puts each choice of a missing one on a line of its own.
    message = celery_option_refusal(error) or " ".join(error.format_message().split())
    _echo_error(f"{message} (see {path} --help)", state)
    return ExitCode.USAGE


def _report(error: Exception, state: Globals) -> ExitCode:
    if state.traceback:
        traceback.print_exception(error)
    else:
        _echo_error(str(error), state)
    return exit_code_for(error)


def _echo_error(message: str, state: Globals) -> None:
    color = state.color if state.color is not None else _color_from_environment()
    # Names in an error may come from a message or from the broker: a terminal must not obey them.
    shown = "\n".join(printable(line, _MAX_LINE) for line in message.splitlines())
    try:
        click.echo(click.style("error: ", fg="red") + shown, err=True, color=color)
    except OSError:
        give_up(sys.stderr)  # the exit code says it as well
