"""How long deliveries may stay unacknowledged: what the tasks need, and what the broker allows. No I/O.

A late-acknowledged delivery is unacked for as long as its task runs. See `docs/explanation/reliability.md`, "Longer than the
consumer timeout": RabbitMQ takes it back after its `consumer_timeout`; nothing in AMQP tells how long that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from amqp_routing import Queue, QueueType
from amqp_tasks.app._builtins import is_builtin
from amqp_tasks.message import listed

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import ServerInfo
    from amqp_tasks.worker._options import WorkerOptions

__all__ = ("claim_after", "consumer_arguments", "timeout_note", "unlimited_tasks")

MARGIN = 60.0
"""Seconds beyond the run: the broker looks once a minute, and the outcome must be stored before the ack."""
ASKED_BY_CONSUMERS = (4, 3)
"""RabbitMQ takes `x-consumer-timeout` from consumers of quorum queues from here on; before, it ignores it."""
SET_BY_QUEUES = (3, 12)


def late_limits(app: App, options: WorkerOptions) -> dict[str, float | None]:
    """The late-acknowledged tasks with the seconds that a run may take: the hard limit, else the soft one; None: any."""
    default = app.settings.task.acks_late
    return {
        name: task.time_limit or options.time_limit or task.soft_time_limit or options.soft_time_limit
        for name, task in app.tasks.items()
        if not is_builtin(name) and (default if task.acks_late is None else task.acks_late)
    }


def unlimited_tasks(app: App, options: WorkerOptions) -> tuple[str, ...]:
    """The late-acknowledged tasks that may run for any time."""
    return tuple(sorted(name for name, limit in late_limits(app, options).items() if limit is None))


def needed(app: App, options: WorkerOptions) -> float:
    """Seconds for which a delivery of any limited task may be unacked."""
    return max((limit for limit in late_limits(app, options).values() if limit), default=0.0) + MARGIN


def consumer_arguments(app: App, options: WorkerOptions) -> Mapping[str, Mapping[str, Any]]:
    """What to ask of the broker for each queue whose timeout is too short; only quorum queues can be asked."""
    milliseconds = int(needed(app, options) * 1000)
    return {
        queue.name: {"x-consumer-timeout": milliseconds}
        for queue in _too_short(app, options, is_queue_heeded=True)
        if queue.type is QueueType.QUORUM
    }


def claim_after(app: App, options: WorkerOptions) -> float:
    """Seconds after which a run may come to be delivered again, with room for the news to be everywhere by then; infinite: never."""
    queues = (options.topology.queue(name) for name in options.queue_names)
    allowed = (_allowed(app, queue, is_queue_heeded=True) for queue in queues if queue is not None)
    return min((seconds for seconds in allowed if seconds is not None), default=math.inf) / 2


def timeout_note(app: App, options: WorkerOptions, server: ServerInfo) -> str | None:
    """What to tell a person about tasks that may run longer than the broker allows; None when there is nothing to."""
    queues = [
        queue
        for queue in _too_short(app, options, is_queue_heeded=server.version >= SET_BY_QUEUES)
        if server.version < ASKED_BY_CONSUMERS or queue.type is not QueueType.QUORUM
    ]
    if not queues:
        return None
    seconds = needed(app, options)
    allowed = min(_allowed(app, queue, is_queue_heeded=True) or seconds for queue in queues)
    longest = [
        name for name, limit in late_limits(app, options).items() if limit and limit + MARGIN > allowed
    ]
    by_queue = (
        f", or Queue(consumer_timeout={seconds:g}) for a queue that is declared anew"
        if server.version >= SET_BY_QUEUES
        else ""
    )
    return (
        f"task {listed(longest)} may run for longer than the consumer_timeout of the broker ({allowed:g} s unless"
        f" broker_consumer_timeout says otherwise; queue {listed(queue.name for queue in queues)}), which then delivers it"
        f" again: set consumer_timeout = {seconds * 1000:.0f} in rabbitmq.conf{by_queue} and"
        f" broker_consumer_timeout={seconds:g} here, or give the task acks_late=False"
    )


def _too_short(app: App, options: WorkerOptions, *, is_queue_heeded: bool) -> Iterator[Queue]:
    seconds = needed(app, options)
    for name in options.queue_names:
        queue = options.topology.queue(name)
        if queue is not None:
            allowed = _allowed(app, queue, is_queue_heeded=is_queue_heeded)
            if allowed is not None and seconds > allowed:
                yield queue


def _allowed(app: App, queue: Queue, *, is_queue_heeded: bool) -> float | None:
    own = queue.consumer_timeout if is_queue_heeded else None
    return app.settings.broker.consumer_timeout if own is None else own
