"""`amqp-tasks health`: does the worker that keeps a health file work, and does it take tasks?

Containers run it every few seconds, so it reads the file and imports nothing of the worker, nor the app where the path is known without.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import json_option
from amqp_tasks.cli._output import print_json, print_lines

__all__ = ("health",)

_VARIABLE = "AMQP_TASKS_WORKER_HEALTH_FILE"


@click.command(
    cls=Command,
    short_help="Ask whether a worker works and takes tasks.",
    epilog=command_epilog(
        "amqp-tasks worker -Q hipri --health-file /tmp/hipri.json",
        "amqp-tasks health /tmp/hipri.json",
        "AMQP_TASKS_WORKER_HEALTH_FILE=/tmp/hipri.json amqp-tasks health --live",
    ),
)
@click.argument("path", required=False)
@click.option(
    "--ready/--live",
    "asks_ready",
    default=True,
    help="Whether it takes tasks of all its queues now, or only whether it works: a worker that waits for its broker does, and one"
    " that must be restarted does not. [default: --ready]",
)
@json_option
@global_options
@pass_globals
def health(state: Globals, path: str | None, asks_ready: bool, as_json: bool) -> int:
    """Ask, of the health file PATH, how its worker is; 0: well, 1: not, with a line that says why and what to do.

    Without PATH the file is that of AMQP_TASKS_WORKER_HEALTH_FILE, else of the app's setting worker_health_file.
    """
    path = path or os.environ.get(_VARIABLE) or state.load_app().settings.worker.health_file
    if path is None:
        raise click.UsageError(
            f"no health file is named: give its PATH, or set worker_health_file or {_VARIABLE}"
        )
    report, fault = _read(path)
    not_live = [fault] if fault else report["not_live"]
    not_ready = [*not_live, *report.get("not_ready", ())]
    faults = not_ready if asks_ready else not_live
    if as_json:
        answers = {"is_ready": not not_ready, "is_live": not not_live, "faults": faults}
        print_json({**answers, "report": report or None})
    else:
        print_lines(f"{report.get('node', path)}: {'; '.join(faults) or report['state']}")
    return ExitCode.FAILED if faults else ExitCode.OK


def _read(path: str) -> tuple[dict[str, Any], str]:
    """What the file says, and what is wrong with the file itself; nothing is believed of one that is too old."""
    try:
        report = json.loads(Path(path).read_bytes())
        age = time.monotonic() - report["monotonic"]
        node, max_age = report["node"], report["max_age"]
    except FileNotFoundError:
        return {}, f"there is no health file {path!r}: no worker has been started with it, or it has ended"
    except OSError as exc:
        return {}, f"health file {path!r} cannot be read: {exc.strerror}: ask as the user of the worker"
    except (ValueError, KeyError, TypeError):
        return (
            {},
            f"{path!r} is no health file, or its worker has just been started: ask again, or name another",
        )
    if 0 <= age <= max_age:
        return report, ""
    when = f"{age:.0f} s ago" if age >= 0 else "before the machine was started"
    return {}, (
        f"{node} wrote its health file {path!r} last {when}, at {report['time']}: it was killed, is stopped or hangs: restart it"
    )
