"""What a worker says about itself when it starts."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from amqp_routing import DestinationKind
from amqp_tasks.app._builtins import is_builtin
from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import ServerInfo
    from amqp_tasks.worker._options import WorkerOptions

__all__ = ("banner",)


def banner(
    app: App, options: WorkerOptions, server: ServerInfo, *, paused_queues: Collection[str], now: datetime
) -> str:
    """The banner's text. Passwords are masked."""
    lines = [
        f"{options.node} amqp-tasks {_version()}",
        f"{platform.platform()} host:{socket.gethostname()} pid:{os.getpid()} {now:%Y-%m-%d %H:%M:%S %Z}".rstrip(),
        "",
        "[config]",
        f"- app:         {app.main or '__main__'}:{id(app):#x}",
        f"- broker:      {server.url} ({server.product} {'.'.join(map(str, server.version))})",
        f"- results:     {_results(app)}",
        f"- concurrency: {options.concurrency if options.pool.name != 'solo' else 1} ({options.pool.name})",
        "",
        "[queues]",
        *(
            _queue_line(options, name) + (" (paused)" if name in paused_queues else "")
            for name in options.queue_names
        ),
        "",
        "[tasks]",
        *(f"- {printable(name)}" for name in sorted(app.tasks) if not is_builtin(name)),
    ]
    return "\n".join(lines) + "\n"


def _version() -> str:
    # It brings an e-mail parser, which only who asks for the version needs.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("amqp-tasks")
    except PackageNotFoundError:
        return "(not installed)"


def _results(app: App) -> str:
    backend = app.settings.result.backend
    return "disabled" if backend is None else str(backend)


def _queue_line(options: WorkerOptions, name: str) -> str:
    topology = options.topology
    queue = topology.queue(name)
    bound = [
        f"exchange={binding.source} key={binding.routing_key}"
        for binding in topology.bindings
        if binding.destination_kind is DestinationKind.QUEUE and binding.destination == name
    ]
    kind = f" type={queue.type.value}" if queue is not None else ""
    return f"- {name}: {', '.join(bound) or f'exchange=(default) key={name}'}{kind}"
