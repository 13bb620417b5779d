"""The messages of runs that follow others: a pure function from a job and what its task wants to what is sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import MessageTooLarge
from amqp_tasks.message import (
    ERROR_TIME,
    FIRST_ERROR_TIME,
    RATE_HEADER,
    REQUEUES_HEADER,
    SNOOZES_HEADER,
    OutgoingMessage,
    new_body,
    run_again,
)
from amqp_tasks.message._headers import table_size

if TYPE_CHECKING:
    from amqp_tasks.app._retry import Again
    from amqp_tasks.message import Envelope, Payload
    from amqp_tasks.worker._job import Job

__all__ = ("message_of", "requeued", "sent_round")

_MAX_HEADERS = 120 * 1024
"""Bytes; with the other properties they must fit one frame (128 KiB)."""


def message_of(
    job: Job, again: Again, payload: Payload | None, *, now: datetime, max_bytes: int
) -> OutgoingMessage:
    """The next run's message; one whose body was not read keeps its arguments.

    Raises:
        EncodeError, MessageTooLarge, ConfigurationError: new arguments or headers that cannot be sent.
    """
    envelope, delivery = job.envelope, job.delivery
    assert envelope is not None
    changes: dict[str, Any] = {
        **_noted(envelope),
        **again.changes,
        # The broker waits for the whole seconds of the delay, and the worker that gets it for the rest.
        "eta": (now + timedelta(seconds=again.delay)).isoformat() if again.delay > 0 else None,
    }
    if again.is_counted:
        changes["retries"] = envelope.retries + 1
        changes.setdefault(FIRST_ERROR_TIME, now.isoformat())
    else:
        changes[SNOOZES_HEADER] = envelope.snoozes + 1
    body = delivery.body
    if payload is not None and again.args is not None and again.kwargs is not None:
        body = new_body(envelope, again.args, again.kwargs, payload.embed, max_bytes=max_bytes)
    if again.labels is not None:
        changes["argsrepr"], changes["kwargsrepr"] = again.labels
    # By default straight into the queue it came from: through its exchange it could reach others as well.
    exchange, routing_key = "", delivery.queue_name
    if again.destination is not None:
        exchange, routing_key = again.destination.exchange, again.destination.routing_key
    message = run_again(
        delivery.properties,
        body,
        exchange=exchange,
        routing_key=routing_key,
        changes=changes,
        priority=again.priority,
        delay=again.delay,
        is_signed_anew=True,
    )
    _check_size(message)
    return message


def _check_size(message: OutgoingMessage) -> None:
    """No publish of it could succeed, however often it is tried."""
    size = table_size(message.properties.all_headers())
    if size > _MAX_HEADERS:
        raise MessageTooLarge(f"the headers of the retry take {size} bytes, at most {_MAX_HEADERS} fit")


def requeued(job: Job) -> OutgoingMessage:
    """The same once more, at once: a snooze of no time that is counted, as such a task may say the same for ever."""
    envelope = job.envelope
    assert envelope is not None
    return run_again(
        job.delivery.properties,
        job.delivery.body,
        exchange="",
        routing_key=job.delivery.queue_name,
        changes={
            **_noted(envelope),
            SNOOZES_HEADER: envelope.snoozes + 1,
            REQUEUES_HEADER: envelope.requeues + 1,
        },
    )


def sent_round(job: Job, seconds: float, *, is_paced: bool = False) -> OutgoingMessage:
    """The same message for its queue, with so many seconds to wait in the broker.

    Args:
        job: what came too early, or out of turn.
        seconds: to wait.
        is_paced: it waits for its turn under a rate limit, and is marked as one that has waited.
    """
    envelope = job.envelope
    assert envelope is not None
    changes = _noted(envelope)
    if ERROR_TIME in envelope.headers:  # see `key_of`
        changes[ERROR_TIME] = envelope.headers[ERROR_TIME]
    if is_paced:
        runs = envelope.runs
        if not job.crashes:
            # A snooze, so that the broker may give us this one again, and we know that its copy is on its way. One that has crashed
            # keeps the name under which its crashes are counted.
            runs += 1
            changes[SNOOZES_HEADER] = envelope.snoozes + 1
        changes[RATE_HEADER] = runs
    return run_again(
        job.delivery.properties,
        job.delivery.body,
        exchange="",
        routing_key=job.delivery.queue_name,
        changes=changes,
        delay=seconds,
    )


def _noted(envelope: Envelope) -> dict[str, Any]:
    """When the task first failed, if that was noted: a copy loses such headers, which tell of its last stay."""
    first = envelope.headers.get(FIRST_ERROR_TIME)
    return {FIRST_ERROR_TIME: first} if isinstance(first, str) else {}
