"""What a worker is told, worked out once before anything starts: arguments over settings."""

from __future__ import annotations

import math
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._given import several
from amqp_tasks.app._topology import dead_letters_held
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import dead_letter_queue_name
from amqp_tasks.settings._cpus import usable_cpus
from amqp_tasks.worker.pool import Layout, Pool, require
from amqp_tasks.worker.pools import pool_named

if TYPE_CHECKING:
    from amqp_routing import Topology
    from amqp_tasks.app import App
    from amqp_tasks.settings import Settings

__all__ = ("Asked", "WorkerOptions", "node_name", "node_path", "queue_names", "resolve", "select_queues")

DEFAULT_NODE = "worker@%h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments of `Worker`; None leaves a thing to the settings."""

    queues: Sequence[str] | None = None
    exclude_queues: Collection[str] = ()
    concurrency: int | None = None
    pool: str | None = None
    hostname: str | None = None
    prefetch_multiplier: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no option of the command line could be.

        Raises:
            ConfigurationError: an argument has a value that it cannot have.
        """
        for name in ("concurrency", "prefetch_multiplier", "max_tasks_per_child", "max_memory_per_child"):
            _check(name, getattr(self, name), "a whole number of at least 1", int)
        for name in ("time_limit", "soft_time_limit"):
            _check(name, getattr(self, name), "a finite number of seconds above 0", int, float)
        if not isinstance(self.hostname, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"hostname must be text, got {self.hostname!r:.80}")


def _check(name: str, value: Any, wanted: str, *kinds: type) -> None:
    if value is None:
        return
    # By its very type, as True is no number that anybody means; NaN is above nothing.
    if type(value) not in kinds or not 0 < value < math.inf:
        raise ConfigurationError(
            f"{name} must be {wanted}, got {value!r:.80}: leave it out for what the settings say"
        )


def queue_names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Names of queues, as a list of them or in one text with commas between them.

    Raises:
        ConfigurationError: one of them is empty, or no text.
    """
    names = several(
        [each.strip() for each in given.split(",")] if isinstance(given, str) else given, "a queue"
    )
    if not all(names):
        raise ConfigurationError(f"{given!r:.80} has an empty name of a queue: write a,b")
    return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Everything a node needs to know, resolved.

    Attributes:
        node: its name.
        queue_names: what it consumes.
        topology: of those queues.
        pool: the pool's class.
        layout: processes and slots.
        prefetch_multiplier: messages per slot, fixed; None: adaptive.
        max_tasks: of a process before it is replaced; None: no limit.
        max_memory_kib: resident, likewise.
        time_limit: seconds, for tasks and calls that set none; None: no limit.
        soft_time_limit: likewise.
    """

    node: str
    queue_names: tuple[str, ...]
    topology: Topology
    pool: type[Pool]
    layout: Layout
    concurrency: int
    prefetch_multiplier: int | None
    max_tasks: int | None
    max_memory_kib: int | None
    time_limit: float | None
    soft_time_limit: float | None


def node_name(pattern: str | None) -> str:
    """Expand `%h` (host), `%n` (its first part), `%d` (its domain) and `%%`; a name without `@` gets the host.

    Raises:
        ConfigurationError: it is empty, or cannot be written as UTF-8.
    """
    if pattern is None:
        pattern = DEFAULT_NODE
    if not pattern:
        raise ConfigurationError(
            f"the name of a worker is empty: give one, or leave it out for {DEFAULT_NODE}"
        )
    try:
        pattern.encode()
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"the name of a worker {pattern!r} cannot be written as UTF-8") from exc
    host = socket.gethostname()
    first, _, domain = host.partition(".")
    if "@" not in pattern:
        pattern += "@%h"
    return _expand(pattern, {"%%": "%", "%h": host, "%n": first, "%d": domain})


def node_path(pattern: str, node: str) -> str:
    """Expand `%h` (the node's name), `%n` (its part before the `@`), `%d` (the part after it) and `%%`."""
    name, _, host = node.partition("@")
    return _expand(pattern, {"%%": "%", "%h": node, "%n": name, "%d": host})


def _expand(pattern: str, known: Mapping[str, str]) -> str:
    text, at = "", 0
    while at < len(pattern):
        pair = pattern[at : at + 2]
        text += known.get(pair, pattern[at])
        at += 2 if pair in known else 1
    return text


def select_queues(
    topology: Topology, *, queues: Sequence[str] | None, exclude: Collection[str]
) -> tuple[str, ...]:
    """The queues to consume: those asked for, else all task queues, without the excluded ones.

    Raises:
        ConfigurationError: none is left, an excluded one is unknown, or one holds dead letters.
    """
    dead = {dead_letter_queue_name(name) for name in topology.queue_names}
    everything = tuple(name for name in topology.queue_names if name not in dead)
    wanted = tuple(dict.fromkeys(queues)) if queues else everything
    for name in wanted:
        _refuse_dead_letters(name, everything, wanted, is_known=name in topology.queue_names)
    for name in exclude:
        if name not in wanted:
            raise ConfigurationError(f"cannot exclude queue {name!r}: it is not one of {', '.join(wanted)}")
    chosen = tuple(name for name in wanted if name not in exclude)
    if not chosen:
        raise ConfigurationError("no queue is left to consume: name some with -Q, or exclude fewer with -X")
    return chosen


def _refuse_dead_letters(
    name: str, everything: Collection[str], wanted: Collection[str], *, is_known: bool
) -> None:
    """Dead letters run as work would do again what has failed for good, and lose the reason why they lie there."""
    task_queues = {*everything, *wanted}
    task_queue = dead_letters_held(name, task_queues, is_known=is_known)
    if task_queue is None:
        return
    hint = "" if task_queue in task_queues else f"; if {name!r} is a task queue, add it to task_queues"
    raise ConfigurationError(
        f"{name!r} holds the dead letters of {task_queue!r}, which are not run as they are; to have them run again: "
        f"amqp-tasks dlq requeue -Q {task_queue}{hint}"
    )


def resolve(app: App, asked: Asked, *, default_pool: str) -> WorkerOptions:
    """Work out the options of a node.

    Args:
        app: finalized.
        asked: the arguments.
        default_pool: the pool when no argument names one.

    Raises:
        ConfigurationError: options that do not go together, an unknown pool or queue.
    """
    settings: Settings = app.settings
    worker = settings.worker
    pool = pool_named(asked.pool or default_pool)
    concurrency = asked.concurrency or worker.concurrency or usable_cpus()
    queue_names = select_queues(app.topology, queues=asked.queues, exclude=asked.exclude_queues)
    max_tasks = asked.max_tasks_per_child or worker.max_tasks_per_child
    max_memory = asked.max_memory_per_child or worker.max_memory_per_child
    for value, name in (
        (max_tasks, "worker_max_tasks_per_child"),
        (max_memory, "worker_max_memory_per_child"),
    ):
        if value is not None:
            require(pool, capability="recycle", asked_by=name)
    hard, soft = _limits(settings, asked, pool)
    return WorkerOptions(
        node=node_name(asked.hostname),
        queue_names=queue_names,
        topology=app.topology_for(queue_names),
        pool=pool,
        layout=pool.layout(concurrency),
        concurrency=concurrency,
        prefetch_multiplier=asked.prefetch_multiplier or worker.prefetch_multiplier,
        max_tasks=max_tasks,
        max_memory_kib=max_memory,
        time_limit=hard,
        soft_time_limit=soft,
    )


def _limits(settings: Settings, asked: Asked, pool: type[Pool]) -> tuple[float | None, float | None]:
    hard = asked.time_limit or settings.task.time_limit
    soft = asked.soft_time_limit or settings.task.soft_time_limit
    # With memory:// no pool can: a program's tests must not need settings of their own for that.
    if hard and settings.broker.url[0].scheme != "memory":
        require(pool, capability="end_a_task", asked_by="task_time_limit")
    if hard and soft and soft >= hard:
        raise ConfigurationError(
            f"the soft time limit ({soft:g} s) must be below the hard one ({hard:g} s), which would always be first: "
            "lower the one or raise the other"
        )
    return hard, soft
