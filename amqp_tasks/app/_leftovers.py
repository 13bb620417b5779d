"""Joins of a failed workflow none of whose failed steps lies in the dead letters any more, as somebody has purged them.

A failed step says how many joins its workflow has, and so what their queues are called. Without one the names are tried: they end with a number from
0 on, but who has begun its steps is gone, so one that is not there says nothing of the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any

from amqp_tasks.canvas import join_queues
from amqp_tasks.errors import BrokerUnreachable, MalformedMessage
from amqp_tasks.message import JOIN_PREFIX, JoinOutcome, JoinTold, Limits, read_join
from amqp_tasks.transport import ConsumerOptions, ConsumerState

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.transport import ConsumerEvent, Delivery, QueueStatus

__all__ = ("discard_left",)

_NAMES_TRIED = 256
_MAX_HELD = 65_535
_QUIET = 1.0
_STALLED = 30.0
_CLOSE_TIMEOUT = 10.0
_LOOK_OF_ANOTHER = 5.0


def discard_left(app: App, workflow_id: str) -> int:
    """Remove the joins of a workflow if one of them keeps the failure of a step; returns how many steps waited in them.

    One of which nothing has failed runs, and keeps them. A failed step that was resumed and runs cannot be told from one that was purged.

    Raises:
        BrokerConnectionError, BrokerOperationError: the broker cannot be asked, or went away.
    """
    waiting: dict[str, int] = {}
    has_failed = False
    queues = join_queues(workflow_id, _NAMES_TRIED)
    for queue, found in zip(queues, app.transport.queue_statuses(queues), strict=True):
        status = None if found is None else _status(app, queue)
        if status is not None:
            waiting[queue], keeps_failure = _look_into(app, queue, status.messages)
            has_failed = has_failed or keeps_failure
    if not has_failed:
        return 0
    for queue in waiting:
        app.transport.delete_queue(queue)
    return sum(waiting.values())


def _status(app: App, queue: str) -> QueueStatus | None:
    """The state of a queue, if possible while no worker holds what is in it: a look at a join is a moment's work."""
    deadline, pause = time.monotonic() + _LOOK_OF_ANOTHER, Event()
    while True:
        status = app.transport.queue_status(queue)
        if status is None or not status.consumers or time.monotonic() > deadline:
            return status
        pause.wait(0.05)


def _look_into(app: App, queue: str, count: int) -> tuple[int, bool]:
    """How many steps wait in a join, and whether it keeps the failure of one that could be resumed. All of it stays there."""
    limits = Limits(max_message_bytes=app.settings.app.max_message_bytes)
    steps, kept, ended = 1, set[int](), set[int]()
    for delivery in _deliveries(app, queue, count):
        try:
            found = read_join(
                delivery.properties, delivery.body, limits=limits, queue=queue, keys=app.transport.keys
            )
        except MalformedMessage:
            continue
        match found:
            case JoinOutcome() if _is_of_another(found, queue):
                pass
            case JoinOutcome():
                (kept if found.kept_as else ended).add(found.index)
            case JoinTold():
                pass
            case _:
                parts: list[Any] = found.get("steps") or []
                steps = sum(1 + len(part.get("chain") or ()) for part in parts)
    return steps, bool(kept - ended)


def _is_of_another(found: JoinOutcome, queue: str) -> bool:
    """Whether it is what another join has told of a failure that it keeps itself: when that one has begun its steps, this stays."""
    return found.kept_as.startswith(JOIN_PREFIX) and not found.kept_as.startswith(f"{queue} ")


def _deliveries(app: App, queue: str, count: int) -> Iterator[Delivery]:
    """What a queue holds; it goes back when this ends. Less than that, where a worker takes it at the same time."""
    if not count:
        return
    inbox: SimpleQueue[Any] = SimpleQueue()

    def on_event(event: ConsumerEvent) -> None:
        if event.state in {ConsumerState.LOST, ConsumerState.FAILED}:
            inbox.put(event.error or BrokerUnreachable("the connection was lost while looking"))

    options = ConsumerOptions(prefetch=min(count, _MAX_HELD), exclusive=True)
    consumer = app.transport.consume([queue], options, on_deliveries=inbox.put, on_event=on_event)
    try:
        since = time.monotonic()
        while count > 0:
            try:
                found = inbox.get(timeout=_QUIET)
            except Empty:
                status = app.transport.queue_status(queue)
                if status is None or status.consumers > 1 or not status.messages:
                    return
                if time.monotonic() - since > _STALLED:
                    raise BrokerUnreachable(
                        f"queue {queue!r} has messages and delivers none: look whether its node is up, and try again"
                    ) from None
                continue
            if isinstance(found, Exception):
                raise found
            count -= len(found)
            since = time.monotonic()
            yield from found
    finally:
        consumer.close(timeout=_CLOSE_TIMEOUT)
