"""`amqp-tasks config`: the settings in force and where each comes from."""

from __future__ import annotations

import click

from amqp_tasks.cli._globals import Globals, Group, global_options, import_tasks, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option
from amqp_tasks.cli._output import print_json, print_table

__all__ = ("config",)


@click.group(cls=Group, short_help="Show the settings in force.")
@global_options
def config() -> None:
    """Look at the settings."""


@config.command(epilog=command_epilog("amqp-tasks config show", "amqp-tasks config show --changed --json"))
@click.option("--changed", is_flag=True, help="Only what differs from the default.")
@json_option
@global_options
@pass_globals
def show(state: Globals, changed: bool, as_json: bool) -> None:
    """Print every setting with its value and origin; secrets are masked.

    The modules of `imports` and `include` are imported, as a worker does, and all settings validated first, so this is also the way to
    check a configuration.
    """
    app = state.load_app()
    import_tasks(app)  # they may change settings, or not exist
    # Routes and annotations are validated where they are used; nothing connects by this.
    _ = app.resources
    conf = app.conf
    rows = [
        (name, value, str(conf.origin(name))) for name, value in sorted(conf.as_dict(masked=True).items())
    ]
    if changed:
        rows = [row for row in rows if row[2] != "default"]
    if as_json:
        print_json({name: {"value": value, "origin": origin} for name, value, origin in rows})
    else:
        print_table(
            ("setting", "value", "origin"), [(name, repr(value), origin) for name, value, origin in rows]
        )
