"""Messages set aside: the body byte for byte, what they were, and why they lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from amqp_tasks.message._amqp import HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._headers import (
    ERROR_TIME,
    FIRST_ERROR_TIME,
    JOINS_HEADER,
    PROTOCOL_HEADERS,
    SIGNATURE_HEADER,
    STEP_HEADER,
    is_broker_header,
    is_table_value,
    table_size,
)
from amqp_tasks.message._printable import header_text
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("DEAD_SUFFIX", "dead_letter", "dead_letter_note", "dead_letter_queue_name", "kept_headers")

DEAD_SUFFIX = ".dead"
_MAX_MESSAGE = 1024
_MAX_TRACEBACK = 32 * 1024
_MAX_HEADERS = 80 * 1024
"""Bytes of original headers that are kept: all properties must fit one frame (128 KiB), with ours beside them."""
_MAX_OWN_HEADER = 1024
"""Bytes up to which a header of the task protocol is left out only after all others."""
_ROUTERS = ("CC", "BCC")
"""RabbitMQ routes by these headers; published again they would send copies to where the original already went."""
_KEPT = frozenset({JOINS_HEADER, STEP_HEADER, SIGNATURE_HEADER})
"""Without the first two, what waits for the task would not be told when it is put back; without the third it would be refused."""


def dead_letter_queue_name(queue_name: str) -> str:
    """Where messages of a queue are set aside."""
    return queue_name + DEAD_SUFFIX


def dead_letter_note(queue_name: str, count: int) -> str:
    """What a person is told of a queue that has dead letters, with the command to look at them."""
    what = "1 dead letter lies" if count == 1 else f"{count} dead letters lie"
    return f"{what} in {dead_letter_queue_name(queue_name)}; to see why: amqp-tasks dlq list -Q {queue_name}"


def dead_letter(
    *,
    queue_name: str,
    exchange: str,
    routing_key: str,
    properties: Properties | None,
    body: bytes,
    reason: DeadLetterReason | str,
    detail: str,
    error_type: str | None = None,
    traceback: str | None = None,
    attempts: int | None = None,
    worker: str | None = None,
    now: datetime | None = None,
) -> OutgoingMessage:
    """The message that sets another one aside in `<queue>.dead`.

    Kept: the body byte for byte, all properties except `expiration` and `user_id`, all headers except the broker's
    own, `CC`/`BCC` and what cannot be published again; names of headers left out are in `x-error-dropped`.

    Args:
        queue_name: the queue it was consumed from.
        exchange: where it had been published.
        routing_key: the key it had been published with.
        properties: as received; None when they could not be decoded.
        body: as received.
        reason: see `DeadLetterReason`.
        detail: one sentence for people; cut at 1,024 characters.
        error_type: qualified class name of the exception, if there was one.
        traceback: its text; the end is kept when longer than 32 KiB.
        attempts: how often it was tried, if known.
        worker: node name of the worker that set it aside.
        now: the present; by default the system's clock.
    """
    original = properties or Properties()
    received = original.all_headers()
    headers, dropped = kept_headers(received)
    dropped = _drop_largest(headers, dropped)
    time = (now or datetime.now(UTC)).isoformat()
    facts: dict[str, HeaderValue] = {
        "x-error-reason": str(reason),
        "x-error-message": header_text(detail, _MAX_MESSAGE),
        "x-error-type": header_text(error_type, 255) if error_type else None,
        "x-error-traceback": _cut_traceback(traceback) if traceback else None,
        "x-error-queue": queue_name,
        "x-error-exchange": exchange,
        "x-error-routing-key": routing_key,
        ERROR_TIME: time,
        FIRST_ERROR_TIME: _first_time(received.get(FIRST_ERROR_TIME)) or time,
        "x-error-attempts": attempts,
        "x-error-worker": header_text(worker, 255) if worker else None,
        "x-error-user-id": original.user_id,
        "x-error-dropped": dropped or None,
    }
    headers.update((name, value) for name, value in facts.items() if value is not None)
    return OutgoingMessage(
        exchange="",
        routing_key=dead_letter_queue_name(queue_name),
        body=body,
        is_relayed=True,
        properties=replace(
            original, headers=headers, template=None, delivery_mode=2, expiration=None,
            # RabbitMQ refuses another user's name (406), which would close our channel over a stranger's message.
            user_id=None,
        ),
    )  # fmt: skip


def _first_time(value: HeaderValue) -> str | None:
    """What a retry noted, if it is a time: anybody may send such a header."""
    try:
        return datetime.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        return None


def kept_headers(headers: Mapping[str, Any]) -> tuple[dict[str, HeaderValue], list[str]]:
    """What can be published again, and the names of what cannot."""
    kept: dict[str, HeaderValue] = {}
    dropped: list[str] = []
    for name, value in headers.items():
        if is_broker_header(name) or name.startswith("x-error-"):
            continue
        if name in _ROUTERS or not is_table_value({name: value}):
            dropped.append(header_text(name, 255))
        else:
            kept[name] = value
    return kept, dropped


def _drop_largest(kept: dict[str, HeaderValue], dropped: list[str]) -> list[str]:
    """Make `kept` fit, strangers first and the largest of them, so that what says which task it was, and who waits for it, stays."""
    sizes = {name: table_size({name: value}) for name, value in kept.items()}
    total = sum(sizes.values())

    def is_first(name: str) -> tuple[bool, int]:
        is_ours = name in _KEPT or (name in PROTOCOL_HEADERS and sizes[name] <= _MAX_OWN_HEADER)
        return not is_ours, sizes[name]

    for name in sorted(sizes, key=is_first, reverse=True):
        if total <= _MAX_HEADERS:
            break
        total -= sizes[name]
        del kept[name]
        dropped.append(name)
    return dropped[:20]


def _cut_traceback(text: str) -> str:
    safe = text.encode("utf-8", "backslashreplace")
    if len(safe) <= _MAX_TRACEBACK:
        return safe.decode("utf-8")
    return "...\n" + safe[-_MAX_TRACEBACK + 4 :].decode("utf-8", "ignore")
