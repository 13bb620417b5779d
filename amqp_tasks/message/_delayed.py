"""Notes of delayed tasks: what the index says of those that wait in the broker; see `docs/explanation/delay.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from amqp_routing import Queue, QueueType
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import OutgoingMessage
from amqp_tasks.message._journal import JournalEntry, journal_message
from amqp_tasks.message._process import current_origin, new_task_id
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("DELAYED_NAME", "DelayedTask", "delayed_notes", "delayed_queue", "delayed_task", "noted_tasks")

DELAYED_NAME = "amqp_tasks.delay.index"
"""Named like the timer wheel, so that whoever may use that may use this."""
_KIND = "delayed"
_MAX_AGE_DAYS = 62
"""A little longer than the longest way through the wheel; what waits longer is sent round, and noted again."""
_MAX_BYTES = 50_000_000
_SEGMENT_BYTES = 2_000_000
"""The broker drops whole segments only."""
_LATEST = datetime.max.replace(microsecond=0, tzinfo=UTC)
"""Whole seconds, as a float rounds what is later up to a time that cannot be."""
_CHUNK = 200
"""Tasks of one note: together they stay below the size of an entry, however long their names are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedTask:
    """A task that waits in the broker for its time.

    Attributes:
        id: of the task.
        task: its name.
        due: when it may run (aware, UTC).
        exchange: where it goes then; "" is the queue that `routing_key` names.
        routing_key: with which key.
        retries: how often it was retried: it waits for its next attempt where that is not 0.
        is_revoked: by its id, so that it will be refused when it is due; what is revoked by a stamp is refused, too.
    """

    id: str
    task: str
    due: datetime
    exchange: str
    routing_key: str
    retries: int
    is_revoked: bool = False


def delayed_queue() -> Queue:
    """The stream of the index."""
    arguments = {"x-max-age": f"{_MAX_AGE_DAYS}D", "x-stream-max-segment-size-bytes": _SEGMENT_BYTES}
    return Queue(DELAYED_NAME, type=QueueType.STREAM, max_length_bytes=_MAX_BYTES, arguments=arguments)


def delayed_task(message: OutgoingMessage, now: datetime) -> DelayedTask | None:
    """What is noted of a message that is published now; None of one that is no task, or may run within a second."""
    delay = message.delay
    if delay is None or delay < 1.0:
        return None
    headers = message.properties.all_headers()
    task_id, task, retries = headers.get("id"), headers.get("task"), headers.get("retries")
    if not isinstance(task_id, str) or not isinstance(task, str):
        return None
    return DelayedTask(
        id=task_id,
        task=task,
        due=_due(now, delay),
        exchange=message.exchange,
        routing_key=message.routing_key,
        retries=retries if isinstance(retries, int) else 0,
    )


def _due(now: datetime, delay: float) -> datetime:
    try:
        return min(now + timedelta(seconds=delay), _LATEST)
    except OverflowError:
        return _LATEST


def delayed_notes(tasks: Sequence[DelayedTask], now: datetime) -> Iterator[OutgoingMessage]:
    """The messages that add tasks to the index."""
    for at in range(0, len(tasks), _CHUNK):
        rows = [
            [each.id, each.task, each.due.timestamp(), each.exchange, each.routing_key, each.retries]
            for each in tasks[at : at + _CHUNK]
        ]
        entry = JournalEntry(
            kind=_KIND,
            id=new_task_id(),
            time=now.timestamp(),
            sender=current_origin(),
            facts={"tasks": rows},
        )
        yield journal_message(entry, queue_name=DELAYED_NAME)


def noted_tasks(entry: JournalEntry) -> Sequence[DelayedTask]:
    """The tasks that an entry of the index tells of; none for an entry of another kind.

    Raises:
        MalformedMessage: it is not what `delayed_notes` writes.
    """
    return [_noted_task(row) for row in _rows(entry.facts)] if entry.kind == _KIND else ()


def _rows(facts: Mapping[str, Any]) -> list[Any]:
    rows = facts.get("tasks")
    if not isinstance(rows, list):
        raise MalformedMessage(DeadLetterReason.BAD_BODY, "'tasks' of an entry of the index is no array")
    return rows  # pyright: ignore[reportUnknownVariableType]


def _noted_task(row: Any) -> DelayedTask:
    match row:
        case [str(task_id), str(task), (float() | int()) as due, str(exchange), str(key), int(retries)] if (
            0 <= due < datetime.max.replace(tzinfo=UTC).timestamp()
        ):
            when = datetime.fromtimestamp(due, UTC)
            return DelayedTask(
                id=task_id, task=task, due=when, exchange=exchange, routing_key=key, retries=retries
            )
        case _:
            raise MalformedMessage(
                DeadLetterReason.BAD_BODY,
                "a row of the index has id, task, due, exchange, routing key and retries",
            )
