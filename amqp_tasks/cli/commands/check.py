"""`amqp-tasks check`: whether the broker's user has the rights that its work takes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.app._rights import Role, Use, least_patterns, needs_of
from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, import_tasks, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import exclude_queues_option, json_option, queues_option
from amqp_tasks.cli._output import print_json, print_lines, print_table
from amqp_tasks.worker._options import select_queues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqp_tasks.app import App
    from amqp_tasks.app._rights import Need
    from amqp_tasks.errors import BrokerOperationError
    from amqp_tasks.transport import Right

__all__ = ("check",)


@click.command(
    cls=Command,
    short_help="Check the rights of the broker's user.",
    epilog=command_epilog(
        "amqp-tasks check --as producer --without delays --without chords",
        "export AMQP_TASKS_BROKER_URL=amqp://worker:…@rabbit/shop",
        "amqp-tasks check --as worker -Q hipri --json",
    ),
)
@click.option(
    "--as",
    "role",
    type=click.Choice([each.value for each in Role]),
    required=True,
    help="What the user is to be good for.",
)
@queues_option("Queues it sends to, or consumes. [default: the app's task queues]")
@exclude_queues_option("Queues it has nothing to do with. [default: none]")
@click.option(
    "--without",
    type=click.Choice([each.value for each in Use]),
    multiple=True,
    help="What it is not used for; may be given several times. Chords delay, too. [default: nothing]",
)
@json_option
@global_options
@pass_globals
def check(
    state: Globals,
    role: str,
    queues: tuple[str, ...] | None,
    exclude_queues: tuple[str, ...] | None,
    without: tuple[str, ...],
    as_json: bool,
) -> int:
    """Ask the broker whether the user of the broker's URL may do what a producer or a worker of this app does.

    Nothing is sent, taken, declared or bound by asking; the broker logs each question as a channel that it closed. A right
    that is refused is exit code 1. Last come the least rights that suffice once `amqp-tasks topology apply` has
    made the queues. A worker whose tasks send tasks needs the rights of a producer as well. What routes by functions
    answer is not known.
    """
    with state.connected_app() as app:
        import_tasks(app)
        names = select_queues(app.topology, queues=queues, exclude=exclude_queues or ())
        needs = needs_of(app, Role(role), names, without=[Use(each) for each in without])
        refused = app.transport.refused_rights([right for need in needs for right in need.rights])
        command = _command(app, needs)
    rows = [_row(need, refused) for need in needs]
    if as_json:
        print_json({"needs": rows, "least": least_patterns(needs)})
    else:
        headings = ("permission", "pattern", "purpose", "answer")
        print_table(headings, [[row[heading] for heading in headings] for row in rows])
        print_lines(f"\nleast rights:\n{command}")
    return ExitCode.FAILED if refused else ExitCode.OK


def _row(need: Need, refused: Mapping[Right, BrokerOperationError]) -> dict[str, Any]:
    error = next((refused[right] for right in need.rights if right in refused), None)
    return {
        "permission": need.permission,
        "pattern": need.pattern,
        "purpose": need.purpose,
        "is_granted": error is None,
        "answer": "ok" if error is None else error.reply_text,
    }


def _command(app: App, needs: tuple[Need, ...]) -> str:
    url = app.settings.broker.url[0]
    words = ["rabbitmqctl", "set_permissions", "-p", url.vhost, url.user, *least_patterns(needs).values()]
    return shlex.join(words)
