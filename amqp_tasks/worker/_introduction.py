"""What a worker tells a person when it starts: its banner, and what asks for attention."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from amqp_tasks.app._dead_letters import dead_letter_counts
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import AmqpTasksError
from amqp_tasks.message import dead_letter_note, listed, printable
from amqp_tasks.serialization import content_type_of, content_types
from amqp_tasks.worker._banner import banner
from amqp_tasks.worker._unacked import timeout_note, unlimited_tasks

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import ServerInfo, Transport
    from amqp_tasks.worker._options import WorkerOptions

__all__ = ("introduce", "warn_of_root")

logger = logging.getLogger(__name__)


def introduce(
    app: App,
    options: WorkerOptions,
    transport: Transport,
    *,
    paused_queues: Collection[str],
    shows_banner: bool,
) -> None:
    """Print the banner to stdout, and log what else a person should know.

    Args:
        app: whose tasks are run.
        options: how.
        transport: an open one; what it does not know is asked of the broker.
        paused_queues: queues of which nothing is run.
        shows_banner: False leaves the banner out.

    Raises:
        BrokerConnectionError: the connection was lost meanwhile.
    """
    server = transport.open(timeout=5.0)
    if shows_banner:
        text = banner(app, options, server, paused_queues=paused_queues, now=SYSTEM_CLOCK.now())
        _print(text)
    for name in sorted(paused_queues):
        logger.warning(
            "queue %s is paused, nothing of it is run; to go on: amqp-tasks resume %s", name, name,
            extra={"action": "paused", "queue": name},
        )  # fmt: skip
    _note_timeouts(app, options, server)
    _warn_of_hard_limits(app, options)
    _warn_of_serializers(app)
    _warn_of_dead_letters(transport, options.queue_names)


def _print(text: str) -> None:
    """Where stdout is full tasks are run all the same."""
    stream = sys.__stdout__
    if stream is None:
        return
    try:
        # A buffer of its own: what cannot be written now must not be tried again when the process ends.
        with open(
            stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False
        ) as banner_only:
            banner_only.write(f"{text}\n")
    except OSError as exc:
        logger.warning("the banner cannot be written to stdout: %s", exc.strerror, extra={"action": "banner"})


def warn_of_root() -> None:
    """Warn of a worker that runs as root, except as the first process of a container."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and os.getpid() != 1:
        logger.warning(
            "running as root: a task that is tricked into something can do everything; use an own user",
            extra={"action": "root"},
        )


def _note_timeouts(app: App, options: WorkerOptions, server: ServerInfo) -> None:
    """Say which tasks the broker may deliver again while they run."""
    if app.settings.broker.url[0].scheme == "memory":
        return
    if note := timeout_note(app, options, server):
        logger.warning("%s", note, extra={"action": "consumer_timeout"})
    if unlimited := unlimited_tasks(app, options):
        logger.info(
            "tasks without a time limit: %d; a run that is longer than the broker's consumer_timeout is delivered again,"
            " and not run twice for that", len(unlimited),
            extra={"action": "consumer_timeout"},
        )  # fmt: skip


def _warn_of_hard_limits(app: App, options: WorkerOptions) -> None:
    """A limit of the settings is refused before, but with `memory://`. One of a task does not keep a node from starting: another
    may be there to run it."""
    limited = [name for name, task in app.tasks.items() if task.time_limit]
    if options.pool.capabilities.end_a_task or not (limited or options.time_limit):
        return
    logger.warning(
        "the hard time limit of %s is not enforced, as pool %r cannot end a task: use worker_pool='prefork', or a"
        " soft_time_limit", "all tasks (task_time_limit)" if options.time_limit else f"task {listed(limited)}",
        options.pool.name, extra={"action": "time_limit"},
    )  # fmt: skip


def _warn_of_serializers(app: App) -> None:
    """The settings that are refused for it are checked where they are set; this one is a task's, and its calls may go elsewhere."""
    accepted = app.settings.app.accept_content
    types = content_types(accepted)
    for task in app.tasks.values():
        if task.serializer is not None and content_type_of(task.serializer) not in types:
            logger.warning(
                "calls of task %s are written with serializer=%r, which is not in accept_content=%r, so they are refused"
                " here: add it to accept_content", task.name, task.serializer, accepted,
                extra={"action": "serializer", "task_name": task.name},
            )  # fmt: skip


def _warn_of_dead_letters(transport: Transport, queue_names: Sequence[str]) -> None:
    try:
        counts = dead_letter_counts(transport, queue_names)
    except AmqpTasksError as exc:
        logger.debug("dead letters cannot be counted: %s", exc, extra={"action": "dead_letters"})
        return
    for name, count in counts.items():
        if count:
            logger.warning(
                "%s",
                printable(dead_letter_note(name, count), 1024),
                extra={"action": "dead_letters", "queue": name},
            )
