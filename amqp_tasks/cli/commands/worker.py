"""`amqp-tasks worker`: consume queues and run tasks until stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, get_args

import click

from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._globals import Command, Globals, global_options, import_tasks, pass_globals
from amqp_tasks.cli._help import command_epilog
from amqp_tasks.cli._options import (
    count_option,
    exclude_queues_option,
    need_terminal,
    queues_option,
    seconds_option,
    yes_option,
)
from amqp_tasks.cli._values import PoolName, comma_separated, concurrency, umask
from amqp_tasks.settings._worker import LevelName
from amqp_tasks.worker._options import node_name, node_path, select_queues
from amqp_tasks.worker._platform import check_platform
from amqp_tasks.worker._titles import set_title

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("worker",)


@click.command(
    cls=Command,
    short_help="Consume queues and run tasks until stopped.",
    epilog=command_epilog(
        "amqp-tasks -A proj worker",
        "amqp-tasks -A proj worker -Q hipri -c 4 -l info",
        "AMQP_TASKS_APP=proj amqp-tasks worker -Q lopri -P threads -c 32",
    ),
)
@queues_option("Consume only these queues. [default: all queues of the app]")
@exclude_queues_option("Consume all but these queues. [default: none]")
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
    type=PoolName(),
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
    type=click.Choice(get_args(LevelName), case_sensitive=False),
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
    "--health-file",
    metavar="PATH",
    help="Say there, twice a second, how the worker is, for amqp-tasks health. [env: AMQP_TASKS_WORKER_HEALTH_FILE; default: none]",
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
    "--umask",
    callback=umask,
    metavar="OCTAL",
    help="Permissions that files made by the worker and its tasks do not get, such as 027. [default: that of who starts it]",
)
@click.option(
    "--purge",
    "--discard",
    "purge",
    is_flag=True,
    help="Remove the waiting messages of the queues that it consumes, once, before it consumes them. They are lost. Asks, unless --force is given.",
)
@yes_option("--force")
@count_option(
    "--prefetch-multiplier",
    "Messages held per slot, fixed. [env: AMQP_TASKS_WORKER_PREFETCH_MULTIPLIER; default: follows the tasks' durations]",
)
@count_option(
    "--max-tasks-per-child",
    "Tasks after which a process is replaced. [env: AMQP_TASKS_WORKER_MAX_TASKS_PER_CHILD; default: never]",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    metavar="KIB",
    help="Resident KiB after which a process is replaced. [env: AMQP_TASKS_WORKER_MAX_MEMORY_PER_CHILD; default: never]",
)
@seconds_option(
    "--time-limit",
    "Seconds after which the process of a task that sets none is ended. [env: AMQP_TASKS_TASK_TIME_LIMIT; default: no limit]",
)
@seconds_option(
    "--soft-time-limit",
    "Seconds after which a task that sets none is interrupted. [env: AMQP_TASKS_TASK_SOFT_TIME_LIMIT; default: no limit]",
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
    umask: int | None,
    purge: bool,
    yes: bool,
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
    check_platform(sys.platform)
    # Made of what other systems lack.
    from amqp_tasks.worker._identity import become, identity_of
    from amqp_tasks.worker._pidfile import holding_pidfile

    if yes and not purge:
        raise click.UsageError(
            "--force (--yes, -y) answers the question of --purge, and there is none: add --purge, or leave it out"
        )
    if umask is not None:
        os.umask(umask)
    # First of all: not even the app's modules are imported as root.
    if uid is not None or gid is not None:
        become(identity_of(uid, gid))
    app = state.load_app(required=True)
    app.conf.update({f"worker_{name}": value for name, value in settings.items() if value is not None})
    if include:
        app.conf.update(include=(*app.settings.app.include, *include))
    if state.color is False or os.environ.get("NO_COLOR"):
        app.conf.update(worker_log_color=False)
    import_tasks(app)
    if purge and not yes and not _may_purge(app, queues, exclude_queues or ()):
        click.echo("nothing was purged, and no worker started", err=True)
        return ExitCode.FAILED
    node = app.Worker(
        queues=queues,
        exclude_queues=exclude_queues or (),
        purge=purge,
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


def _may_purge(app: App, queues: tuple[str, ...] | None, exclude_queues: Collection[str]) -> bool:
    need_terminal("worker --purge", "messages")
    names = select_queues(app.topology, queues=queues, exclude=exclude_queues)
    return click.confirm(f"Remove all waiting messages of {', '.join(names)} for good?", err=True)
