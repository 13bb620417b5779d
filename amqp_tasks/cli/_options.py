"""Options that several commands have, so that each is spelled, checked and explained in one way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import click

from amqp_tasks.cli._values import Seconds, comma_separated, json_list, json_object

__all__ = (
    "call_options",
    "count_option",
    "exclude_queues_option",
    "json_option",
    "management_option",
    "need_terminal",
    "queues_option",
    "seconds_option",
    "yes_option",
)

F = TypeVar("F", bound=Callable[..., object])


def json_option(command: F) -> F:
    """Add `--json` to a command, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def management_option(told: str, *, default: str) -> Callable[[F], F]:
    """Option `--management`: the URL of RabbitMQ's management API, or None; `told` says what it is good for."""
    return click.option(
        "--management",
        metavar="URL",
        envvar="AMQP_TASKS_MANAGEMENT_URL",
        help=f"http://user:password@host:15672, {told} A password here is visible in the process list: prefer the"
        f" environment. [env: AMQP_TASKS_MANAGEMENT_URL; default: {default}]",
    )


def yes_option(*spellings: str) -> Callable[[F], F]:
    """Option `--yes`, for a command that asks before it removes something; `spellings` are further ones."""
    return click.option("-y", "--yes", *spellings, "yes", is_flag=True, help="Do not ask.")


def need_terminal(command_name: str, what: str) -> None:
    """Refuse to remove `what` where nobody can be asked and `--yes` was not given.

    Raises:
        click.UsageError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{command_name} asks before it removes {what}, and there is no terminal: add --yes"
        )


def queues_option(told: str) -> Callable[[F], F]:
    """Option `--queues`: names of queues, or None."""
    return click.option("-Q", "--queues", callback=comma_separated, metavar="A,B", help=told)


def exclude_queues_option(told: str) -> Callable[[F], F]:
    """Option `--exclude-queues`: names of queues, or None."""
    return click.option("-X", "--exclude-queues", callback=comma_separated, metavar="A,B", help=told)


def count_option(name: str, told: str, *, default: int | None = None) -> Callable[[F], F]:
    """An option for a number of at least one."""
    return click.option(
        name,
        type=click.IntRange(min=1),
        default=default,
        show_default=default is not None,
        metavar="N",
        help=told,
    )


def seconds_option(name: str, told: str, *, default: float | None = None) -> Callable[[F], F]:
    """An option for a time of more than no seconds."""
    return click.option(
        name,
        type=Seconds(min=0, min_open=True),
        default=default,
        show_default=default is not None,
        metavar="SECONDS",
        help=told,
    )


def call_options(command: F) -> F:
    """Add what a call is given: `args` and `kwargs`, and where it is to go."""
    options = (
        click.option(
            "-a",
            "--args",
            callback=json_list,
            default="[]",
            show_default=True,
            metavar="JSON",
            help="Positional arguments, a JSON list.",
        ),
        click.option(
            "-k",
            "--kwargs",
            callback=json_object,
            default="{}",
            show_default=True,
            metavar="JSON",
            help="Keyword arguments, a JSON object.",
        ),
        click.option("--queue", help="Queue to send to. [default: as task_routes says]"),
        click.option("--exchange", help="Exchange to publish to, with --routing-key. [default: the route's]"),
        click.option("--routing-key", help="Routing key. [default: the route's]"),
    )
    for option in reversed(options):
        command = option(command)
    return command
