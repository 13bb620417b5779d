"""Result records and dead letters of jobs: pure functions from what happened to what is sent."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._request import arguments_of
from amqp_tasks.errors import (
    MalformedMessage,
    NotRegistered,
    TaskDied,
    TaskError,
    TaskExpired,
    TaskRevokedError,
)
from amqp_tasks.message import DeadLetterReason, OutgoingMessage, ResultRecord, State, dead_letter

if TYPE_CHECKING:
    from amqp_tasks.app import Request
    from amqp_tasks.app._execution import Outcome
    from amqp_tasks.errors import Reject, Retry
    from amqp_tasks.message import Envelope
    from amqp_tasks.worker._job import Job

__all__ = (
    "UNWANTED",
    "as_waiter_sees",
    "crash_refusal",
    "dead_letter_of",
    "error_text",
    "failure_refusal",
    "outcome_record",
    "refusal_record",
    "requeue_refusal",
    "retry_record",
    "started_record",
)


UNWANTED = frozenset({DeadLetterReason.EXPIRED, DeadLetterReason.REVOKED})
"""Reasons that a sender asked for: such a message is no dead letter, and whoever waits is told REVOKED."""


def outcome_record(
    job: Job, request: Request, outcome: Outcome, *, now: datetime, hostname: str, is_extended: bool
) -> ResultRecord:
    """What is stored of a run."""
    envelope = _envelope(job)
    record = ResultRecord(
        task_id=envelope.id,
        status=outcome.state,
        result=outcome.value if outcome.exception is None else outcome.exception,
        traceback=outcome.traceback_text,
        children=[[[child, None], None] for child in outcome.children],
        date_done=now,
        group_id=envelope.group,
        parent_id=envelope.parent_id,
    )
    if is_extended:
        args, kwargs = arguments_of(request)
        record.name, record.worker, record.retries = envelope.task, hostname, envelope.retries
        record.queue, record.args, record.kwargs = job.delivery.routing_key, list(args), dict(kwargs)
    return record


def started_record(job: Job, *, pid: int, hostname: str) -> ResultRecord:
    """The STARTED state, as Celery writes it."""
    return ResultRecord(
        task_id=_envelope(job).id, status=State.STARTED, result={"pid": pid, "hostname": hostname}
    )


def retry_record(job: Job, signal: Retry, traceback: str | None, *, hostname: str) -> ResultRecord:
    """The RETRY state: why it is run again."""
    envelope = _envelope(job)
    return ResultRecord(
        task_id=envelope.id,
        status=State.RETRY,
        result=signal.exc or signal,
        traceback=traceback,
        group_id=envelope.group,
        parent_id=envelope.parent_id,
        name=envelope.task,
        worker=hostname,
        retries=envelope.retries,
        queue=job.delivery.routing_key,
    )


def refusal_record(job: Job, error: MalformedMessage, *, now: datetime, hostname: str) -> ResultRecord | None:
    """What somebody who waits is told of a message that was not run; None when the headers name nobody."""
    envelope = job.envelope
    if envelope is None or not envelope.reply_to:
        return None
    return ResultRecord(
        task_id=envelope.id,
        status=State.REVOKED if error.reason in UNWANTED else State.FAILURE,
        result=as_waiter_sees(error, envelope),
        date_done=now,
        group_id=envelope.group,
        parent_id=envelope.parent_id,
        name=envelope.task,
        worker=hostname,
        retries=envelope.retries,
        queue=job.delivery.routing_key,
    )


def crash_refusal(task_id: str, crashes: int, cause: str) -> MalformedMessage:
    """Why a task that ended its process too often is not run again."""
    return MalformedMessage(
        DeadLetterReason.CRASH_LIMIT, f"worker died: {cause}, {crashes} times", task_id=task_id
    )


def requeue_refusal(task_id: str, count: int, signal: Reject) -> MalformedMessage:
    """Why a task that goes back to its queue again and again does so no more."""
    return MalformedMessage(
        DeadLetterReason.REQUEUE_LIMIT,
        f"sent back to its queue {count} times (task_requeue_limit): {signal.reason or 'no reason given'}",
        task_id=task_id,
    )


def failure_refusal(failure: Exception) -> MalformedMessage:
    """Why a failed task is kept, when its failure goes to nobody else."""
    error = MalformedMessage(DeadLetterReason.FAILED, error_text(failure))
    error.__cause__ = failure
    return error


def error_text(error: BaseException | None) -> str:
    """What an exception says of itself."""
    try:
        return str(error)
    except (Exception, SystemExit):  # noqa: BLE001 - a user's __str__ may raise anything
        return "(its text cannot be made)"


def dead_letter_of(
    job: Job, error: MalformedMessage, *, now: datetime, hostname: str, traceback: str | None = None
) -> OutgoingMessage:
    """The message that sets a delivery aside with its reason."""
    delivery = job.delivery
    try:
        properties = delivery.properties
    except MalformedMessage:
        properties = None
    return dead_letter(
        queue_name=delivery.queue_name,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        properties=properties,
        body=delivery.body,
        reason=error.reason,
        detail=error.detail,
        error_type=_error_type(error, job.envelope),
        traceback=traceback,
        attempts=job.envelope.retries + max(1, job.crashes) if job.envelope is not None else None,
        worker=hostname,
        now=now,
    )


def _error_type(error: MalformedMessage, envelope: Envelope | None) -> str:
    """What was raised, else what a waiting caller gets, if that says more."""
    seen = error.__cause__ or (error if envelope is None else as_waiter_sees(error, envelope))
    return type(error if type(seen) is TaskError else seen).__qualname__


def as_waiter_sees(error: MalformedMessage, envelope: Envelope) -> Exception:
    """The exception that `get()` is to raise."""
    if error.reason == DeadLetterReason.EXPIRED:
        return TaskExpired(error.detail)
    if error.reason == DeadLetterReason.REVOKED:
        return TaskRevokedError(error.detail)
    if error.reason == DeadLetterReason.UNKNOWN_TASK:
        return NotRegistered(error.detail)
    if error.reason == DeadLetterReason.CRASH_LIMIT:
        return TaskDied(error.detail)
    if isinstance(error.__cause__, Exception) and error.reason == DeadLetterReason.INVALID_ARGUMENTS:
        return error.__cause__
    return TaskError(f"{error.reason}: {error.detail}")


def _envelope(job: Job) -> Any:
    assert job.envelope is not None
    return job.envelope
