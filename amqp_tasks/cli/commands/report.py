"""`amqp-tasks report`: what to paste into a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option, seconds_option
from amqp_tasks.cli._output import print_json
from amqp_tasks.errors import BrokerConnectionError

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("report",)

_PACKAGES = ("amqp-tasks", "pika", "kombu", "pydantic", "click", "rich")


@click.command(
    cls=Command,
    short_help="Print versions, broker and settings.",
    epilog=command_epilog("amqp-tasks report", "amqp-tasks report --json"),
)
@seconds_option("--timeout", "How long to wait for the broker.", default=5.0)
@json_option
@global_options
@pass_globals
def report(state: Globals, timeout: float, as_json: bool) -> None:
    """Print versions, the broker and the settings that differ from the default; secrets are masked.

    An unreachable broker is part of the report, not a failure of it.
    """
    app = state.load_app()
    try:
        data = {"versions": _versions(), "broker": _broker(app, timeout), "settings": _changed_settings(app)}
    finally:
        app.close()
    if as_json:
        print_json(data)
        return
    for title, facts in data.items():
        click.echo(f"{title}:")
        for name, value in facts.items():
            click.echo(f"  {name}: {value}")


def _versions() -> dict[str, str]:
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found["platform"] = platform.platform()
    return found | {name: version(name) for name in _PACKAGES}


def _broker(app: App, timeout: float) -> dict[str, str]:
    try:
        server = app.transport.open(timeout=timeout)
    except BrokerConnectionError as exc:
        return {"unreachable": str(exc)}
    return {"url": server.url, "product": server.product, "version": ".".join(map(str, server.version))}


def _changed_settings(app: App) -> dict[str, Any]:
    shown = app.conf.as_dict(masked=True)
    return {name: value for name, value in sorted(shown.items()) if str(app.conf.origin(name)) != "default"}
