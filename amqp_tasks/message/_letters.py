"""Dead letters, read: what a message in `<queue>.dead` was and why it lies there, whether a worker put it there or RabbitMQ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from amqp_tasks.message._again import run_again
from amqp_tasks.message._amqp import HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._headers import (
    ERROR_TIME,
    FIRST_ERROR_TIME,
    REQUEUES_HEADER,
    SNOOZES_HEADER,
    is_broker_header,
    read_count,
)

__all__ = ("UNKNOWN_REASON", "DeadLetter", "read_dead_letter", "revived")

UNKNOWN_REASON = "unknown"
"""Neither our headers nor RabbitMQ's: somebody published it there."""
_BROKER_REASONS = {
    "rejected": "a consumer rejected it",
    "expired": "its expiration or the queue's message TTL passed before it was consumed",
    "maxlen": "the queue was full",
    "delivery-limit": "it came back to the queue more often than the delivery limit allows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was set aside. Texts are as they came: show them with `amqp_tasks.message.printable`.

    Attributes:
        id: the task's id; of what is no task the message id, else a digest that is the same at every look.
        task: the task's name; None when there is none.
        queue_name: the task queue it was set aside from.
        reason: a word of `DeadLetterReason`; from RabbitMQ `rejected`, `expired`, `maxlen` or `delivery-limit`;
            `unknown` when nothing says it.
        detail: one sentence.
        error_type: class name of the exception, if there was one.
        traceback: its text, if there was one.
        attempts: how often it was tried, if known.
        first_time: when it failed for the first time, if known; aware.
        time: when it was set aside, if known; aware.
        worker: node name of the worker that set it aside; None: RabbitMQ did.
        exchange: where it had been published.
        routing_key: with which key.
        argsrepr: the positional arguments as the sender showed them.
        kwargsrepr: the keyword arguments likewise.
        headers: its own, without those that tell of its death.
        content_type: of the body.
        size: bytes of the body.
        body: as received; None where it was not asked for.
    """

    id: str
    task: str | None
    queue_name: str
    reason: str
    detail: str
    error_type: str | None
    traceback: str | None
    attempts: int | None
    first_time: datetime | None
    time: datetime | None
    worker: str | None
    exchange: str
    routing_key: str
    argsrepr: str | None
    kwargsrepr: str | None
    headers: Mapping[str, HeaderValue]
    content_type: str | None
    size: int
    body: bytes | None


def read_dead_letter(queue_name: str, properties: Properties | None, body: bytes) -> DeadLetter:
    """Read one, whatever it is; raises nothing.

    Args:
        queue_name: the task queue that it was set aside from.
        properties: as received; None when they could not be decoded.
        body: as received.
    """
    given = properties or Properties()
    received = given.all_headers()
    headers = _own(received)
    facts = (
        _ours(received)
        if _text(received.get("x-error-reason"))
        else _brokers(received.get("x-death"), queue_name)
    )
    return DeadLetter(
        id=_text(headers.get("id")) or given.message_id or _digest(headers, body),
        task=_text(headers.get("task")),
        queue_name=queue_name,
        argsrepr=_text(headers.get("argsrepr")),
        kwargsrepr=_text(headers.get("kwargsrepr")),
        headers=headers,
        content_type=given.content_type,
        size=len(body),
        body=body,
        **facts,
    )


def revived(queue_name: str, properties: Properties, body: bytes) -> OutgoingMessage:
    """The message as it was before it was set aside, for its queue alone: not again for all that its exchange feeds.

    It counts as a snooze of no time, which tells this run apart from the one that ended: under one name, a worker that
    gets it redelivered could take it for what it had finished with, and ack it.
    """
    changes: dict[str, HeaderValue] = {SNOOZES_HEADER: read_count(properties.headers, SNOOZES_HEADER) + 1}
    if REQUEUES_HEADER in properties.headers:
        changes[REQUEUES_HEADER] = 0
    return run_again(properties, body, exchange="", routing_key=queue_name, changes=changes)


def _own(headers: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
    return {
        name: value
        for name, value in headers.items()
        if not is_broker_header(name) and not name.startswith("x-error-")
    }


def _ours(headers: Mapping[str, HeaderValue]) -> dict[str, Any]:
    attempts = headers.get("x-error-attempts")
    return {
        "reason": _text(headers.get("x-error-reason")),
        "detail": _text(headers.get("x-error-message")) or "",
        "error_type": _text(headers.get("x-error-type")),
        "traceback": _text(headers.get("x-error-traceback")),
        "attempts": attempts if isinstance(attempts, int) else None,
        "first_time": _time(headers.get(FIRST_ERROR_TIME)),
        "time": _time(headers.get(ERROR_TIME)),
        "worker": _text(headers.get("x-error-worker")),
        "exchange": _text(headers.get("x-error-exchange")) or "",
        "routing_key": _text(headers.get("x-error-routing-key")) or "",
    }


def _brokers(deaths: HeaderValue, queue_name: str) -> dict[str, Any]:
    """What RabbitMQ noted of the death in this queue: the latest first, after other queues that it passed."""
    given = cast("list[object]", deaths) if isinstance(deaths, list) else []
    found = [cast("dict[str, HeaderValue]", each) for each in given if isinstance(each, dict)]
    death = next((each for each in found if each.get("queue") == queue_name), found[0] if found else {})
    reason = (_text(death.get("reason")) or UNKNOWN_REASON).replace("_", "-")
    keys, count = death.get("routing-keys"), death.get("count")
    return {
        "reason": reason,
        "detail": _BROKER_REASONS.get(reason, ""),
        "error_type": None,
        "traceback": None,
        "attempts": count if isinstance(count, int) else None,
        "first_time": _time(death.get("time")),
        "time": _time(death.get("time")),
        "worker": None,
        "exchange": _text(death.get("exchange")) or "",
        "routing_key": _text(keys[0]) or "" if isinstance(keys, list) and keys else "",
    }


def _text(value: HeaderValue) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: HeaderValue) -> datetime | None:
    """An aware datetime in UTC; None for what is no time."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _digest(headers: Mapping[str, HeaderValue], body: bytes) -> str:
    shown = repr(sorted(headers.items(), key=lambda item: item[0])).encode("utf-8", "backslashreplace")
    return f"sha256:{sha256(shown + body).hexdigest()[:16]}"
