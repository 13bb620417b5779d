"""`amqp-tasks worker`: consume queues and run tasks until stopped."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import click

from amqp_tasks.cli._globals import Command, Globals, global_options, import_errors_shown, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._values import comma_separated, concurrency
from amqp_tasks.worker._identity import become, identity_of
from amqp_tasks.worker._options import node_name, node_path
from amqp_tasks.worker._pidfile import holding_pidfile
from amqp_tasks.worker._titles import set_title

__all__ = ("worker",)

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_POOLS = ("prefork", "threads", "solo")


@click.command(
    cls=Command,
    short_help="Consume queues and run tasks until stopped.",
    epilog=command_epilog(
        "amqp-tasks -A proj worker",
        "amqp-tasks -A proj worker -Q hipri -c 4 -l info",
        "amqp-tasks worker -Q lopri -P threads -c 32     # the app is in AMQP_TASKS_APP or pyproject.toml",
    ),
)
@click.option(
    "-Q",
    "--queues",
    callback=comma_separated,
    metavar="A,B",
    help="Consume only these queues. [default: all queues of the app]",
)
@click.option(
    "-X",
    "--exclude-queues",
    callback=comma_separated,
    metavar="A,B",
    help="Consume all but these queues. [default: none]",
)
@click.option(
    "-c",
    "--concurrency",
    callback=concurrency,
    metavar="N|auto",
    help="Tasks that run at the same time: processes, or threads. [env: AMQP_TASKS_WORKER_CONCURRENCY; default: auto, the usable CPUs]",
)
@click.option(
    "-P",
    "--pool",
    type=click.Choice(_POOLS),
    help="Where tasks run. [env: AMQP_TASKS_WORKER_POOL; default: prefork]",
)
@click.option(
    "-n",
    "--hostname",
    metavar="NAME",
    help="Name of this worker; %h is the host, %n its first part, %d its domain. [default: worker@%h]",
)
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="INFO",
    metavar="LEVEL",
    help="Least level that is logged: debug, info, warning, error or critical. [default: info]",
)
@click.option(
    "-f",
    "--logfile",
    metavar="PATH",
    type=click.Path(dir_okay=False),
    help="Append log lines to this file. [default: stderr]",
)
@click.option(
    "--pidfile",
    metavar="PATH",
    help="Hold the process id there, and refuse to start while the process in it lives; %n is the worker's name before the @, %d the part after it, %h both. [default: none]",
)
@click.option(
    "--uid",
    metavar="USER",
    help="Become this user (name or number) before anything else; only for root. [default: stay who starts it]",
)
@click.option(
    "--gid",
    metavar="GROUP",
    help="Become this group. [default: with --uid, that user's own]",
)
@click.option(
    "--prefetch-multiplier",
    type=click.IntRange(min=1),
    metavar="N",
    help="Messages held per slot, fixed. [env: AMQP_TASKS_WORKER_PREFETCH_MULTIPLIER; default: follows the tasks' durations]",
)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tasks after which a process is replaced. [env: AMQP_TASKS_WORKER_MAX_TASKS_PER_CHILD; default: never]",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    metavar="KIB",
    help="Resident KiB after which a process is replaced. [env: AMQP_TASKS_WORKER_MAX_MEMORY_PER_CHILD; default: never]",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Seconds after which the process of a task that sets none is ended. [env: AMQP_TASKS_TASK_TIME_LIMIT; default: no limit]",
)
@click.option(
    "--soft-time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Seconds after which a task that sets none is interrupted. [env: AMQP_TASKS_TASK_SOFT_TIME_LIMIT; default: no limit]",
)
@click.option(
    "-I",
    "--include",
    callback=comma_separated,
    metavar="A,B",
    help="Modules to import besides the app's own. [env: AMQP_TASKS_INCLUDE; default: none]",
)
@global_options
@pass_globals
def worker(
    state: Globals,
    /,
    queues: tuple[str, ...] | None,
    exclude_queues: tuple[str, ...] | None,
    hostname: str | None,
    loglevel: str,
    logfile: str | None,
    pidfile: str | None,
    uid: str | None,
    gid: str | None,
    include: tuple[str, ...] | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    **settings: Any,
) -> int:
    """Run tasks until stopped.

    TERM or INT stops warm: running tasks end, the rest goes back to the broker. A second one stops cold. QUIT dumps
    the stacks of all threads. HUP replaces all processes, each when its task has ended; on a terminal, or in solo, it
    stops.
    """
    # First of all: not even the app's modules are imported as root.
    if uid is not None or gid is not None:
        become(identity_of(uid, gid))
    app = state.load_app(required=True)
    app.conf.update({f"worker_{name}": value for name, value in settings.items() if value is not None})
    if include:
        app.conf.update(include=(*app.settings.app.include, *include))
    if state.color is False or os.environ.get("NO_COLOR"):
        app.conf.update(worker_log_color=False)
    with import_errors_shown("a module with tasks"):
        app.load_imports()
    node = app.Worker(
        queues=queues,
        exclude_queues=exclude_queues or (),
        hostname=hostname,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        loglevel=loglevel,
        logfile=logfile,
        show_banner=not state.quiet,
    )
    name = node_name(hostname)
    set_title(name)
    with holding_pidfile(node_path(pidfile, name)) if pidfile else nullcontext():
        return int(node.start())
