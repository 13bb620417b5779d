"""Result messages, as Celery's rpc backend writes and reads them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias, cast

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.message._amqp import SIGNED_AS_RESULT, OutgoingMessage, Properties
from amqp_tasks.message._envelope import read_body
from amqp_tasks.message._exceptions import exception_to_data
from amqp_tasks.message._headers import MAX_SHORT
from amqp_tasks.message._printable import bounded_repr, header_text
from amqp_tasks.serialization import DEFAULT_LIMITS, Limits, compress, dumps
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("ResultRecord", "State", "build_result", "read_result", "write_result")

_MAX_WITH_ARGUMENTS = 16 * 1024
"""Above this body size a result carries a repr of the task's arguments, not the arguments back to who sent them."""


class State(StrEnum):
    """The states that have a meaning; a task may set others, which are plain text and never ready."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    def is_ready(self) -> bool:
        """Whether no other state follows."""
        return self in _READY


_READY = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})


# Content type, encoding, compression, and the body. Not a class: one is made per task.
_Written: TypeAlias = tuple[str, str, str | None, bytes]


# Not frozen, as Properties: two are made per task. Treat as read-only.
@dataclass(slots=True, kw_only=True)
class ResultRecord:
    """What is known of one task's outcome.

    Attributes:
        status: a `State`, or any text that a task set by itself.
        result: the value; for FAILURE, RETRY and REVOKED the exception as data (an exception is turned into it).
        date_done: aware, for final states.
        children: Celery's result tuples of the tasks that this one sent.
        args, kwargs: as the task got them, or a bounded repr when large.
        queue: the routing key of the delivery, as Celery understands it.
        written: the message's body, once `write_result` has made it.
    """

    task_id: str
    status: str
    result: Any = None
    traceback: str | None = None
    children: list[Any] | None = None
    date_done: datetime | None = None
    group_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    args: Any = None
    kwargs: Any = None
    worker: str | None = None
    retries: int | None = None
    queue: str | None = None
    written: _Written | None = field(default=None, init=False, repr=False, compare=False)

    def is_ready(self) -> bool:
        """Whether the status is final."""
        return self.status in _READY


def build_result(
    record: ResultRecord,
    *,
    reply_to: str,
    correlation_id: str | None = None,
    persistent: bool = True,
) -> OutgoingMessage:
    """The message that tells the caller; mandatory, so that a caller who is gone is noticed.

    Args:
        record: what to tell; written as plain JSON, if `write_result` has not been called.
        reply_to: the caller's reply queue.
        correlation_id: as the task message said; by default the task id.
        persistent: whether the broker keeps it over a restart.

    Raises:
        EncodeError: see `write_result`.
    """
    content_type, encoding, compressed, body = write_result(record)
    return OutgoingMessage(
        exchange="",
        routing_key=reply_to,
        body=body,
        properties=Properties(
            content_type=content_type,
            content_encoding=encoding,
            headers={"compression": compressed} if compressed else {},
            delivery_mode=2 if persistent else 1,
            priority=0,
            correlation_id=correlation_id or record.task_id,
        ),
        signed_as=SIGNED_AS_RESULT,
    )


def write_result(
    record: ResultRecord, *, serializer: str = "json", compression: str | None = None
) -> _Written:
    """Make the body of the message and keep it in the record: users' code (`__json__`) runs here, once.

    Args:
        record: what to tell; one that is written already stays as it is.
        serializer: name or content type.
        compression: method name, None for none.

    Raises:
        EncodeError: the result cannot be written; the message names the culprit.
        ConfigurationError: unknown serializer or compression.
    """
    if record.written is None:
        record.written = _write(record, serializer, compression)
    return record.written


def _write(record: ResultRecord, serializer: str, compression: str | None) -> _Written:
    try:
        content_type, encoding, body = _encode(record, serializer)
    except EncodeError:
        simpler = _simplify_failure(record)
        if simpler is None:
            raise
        content_type, encoding, body = _encode(simpler, serializer)
    compressed = None
    if compression:
        body, compressed = compress(body, compression)
    return content_type, encoding, compressed, body


def _simplify_failure(record: ResultRecord) -> ResultRecord | None:
    """The same failure in plain text, for serializers that know fewer types than JSON; None for other outcomes.

    A caller must learn of a failure even when its arguments cannot travel.
    """
    result: Any = record.result
    data: Any = exception_to_data(result) if isinstance(result, BaseException) else result
    said: Any = cast(dict[str, Any], data).get("exc_message") if isinstance(data, dict) else None
    if not isinstance(said, list):
        return None
    arguments = [bounded_repr(argument) for argument in said]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    traceback = record.traceback
    return replace(
        record,
        result={**data, "exc_message": arguments},
        traceback=header_text(traceback, len(traceback)) if traceback else None,
    )


def _encode(record: ResultRecord, serializer: str) -> tuple[str, str, bytes]:
    result = record.result
    meta: dict[str, Any] = {
        "task_id": record.task_id,
        "status": str(record.status),
        "result": exception_to_data(result) if isinstance(result, BaseException) else result,
        "traceback": record.traceback,
        "children": record.children or [],
        "date_done": record.date_done.isoformat() if record.date_done else None,
    }
    if record.group_id:
        meta["group_id"] = record.group_id
    if record.parent_id:
        meta["parent_id"] = record.parent_id
    if record.name is None:
        return dumps(serializer, meta, root="result message")
    meta |= {"name": record.name, "worker": record.worker, "retries": record.retries, "queue": record.queue}
    return _encode_with_arguments(record, meta, serializer)


def _encode_with_arguments(
    record: ResultRecord, meta: dict[str, Any], serializer: str
) -> tuple[str, str, bytes]:
    """Extended form. Arguments come from a message or a caller, so another serializer may not know their types."""
    try:
        encoded = dumps(
            serializer, {**meta, "args": record.args, "kwargs": record.kwargs}, root="result message"
        )
        if len(encoded[2]) <= _MAX_WITH_ARGUMENTS or not (record.args or record.kwargs):
            return encoded
    except EncodeError:
        pass
    meta |= {"args": bounded_repr(record.args), "kwargs": bounded_repr(record.kwargs)}
    return dumps(serializer, meta, root="result message")


_TEXTS = ("traceback", "group_id", "parent_id", "name", "worker", "queue")


def read_result(
    properties: Properties, body: bytes, *, accept: Collection[str], limits: Limits = DEFAULT_LIMITS
) -> ResultRecord:
    """Read a result message; fields of the wrong type are refused, unknown ones ignored.

    Raises:
        MalformedMessage: see `DeadLetterReason`; its `task_id` is the correlation id.
        ConfigurationError: the accept list itself is wrong.
    """
    try:
        compression = properties.headers.get("compression")
        if compression is not None and not isinstance(compression, str):
            raise MalformedMessage(DeadLetterReason.BAD_HEADERS, "header 'compression' must be text")
        value = read_body(
            properties.content_type, properties.content_encoding, compression, body, accept, limits
        )
        return _read_record(value)
    except MalformedMessage as exc:
        exc.task_id = properties.correlation_id or ""
        raise


def _read_record(value: Any) -> ResultRecord:
    if not isinstance(value, dict):
        raise _bad("a result must be an object", value)
    meta: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - keys are only looked up
    get = meta.get
    for key in ("task_id", "status"):
        text = get(key)
        if not isinstance(text, str) or not 0 < len(text) <= MAX_SHORT:
            raise _bad(f"{key} must be text of 1 to {MAX_SHORT} characters", text)
    for key in _TEXTS:
        if not isinstance(get(key), str | None):
            raise _bad(f"{key} must be text or null", get(key))
    return ResultRecord(
        task_id=meta["task_id"], status=meta["status"], result=get("result"), traceback=get("traceback"),
        children=_read_children(get("children")), date_done=_read_date(get("date_done")), group_id=get("group_id"),
        parent_id=get("parent_id"), name=get("name"), args=get("args"), kwargs=get("kwargs"), worker=get("worker"),
        retries=_read_retries(get("retries")), queue=get("queue"),
    )  # fmt: skip


def _read_children(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise _bad("children must be an array", value)
    return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any values


def _read_retries(value: Any) -> int | None:
    if value is not None and not isinstance(value, int):
        raise _bad("retries must be a number", value)
    return value


def _read_date(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _bad("date_done must be an ISO 8601 time", value) from exc


def _bad(wanted: str, value: Any) -> MalformedMessage:
    # The type only: a result holds users' data, which must not get into logs.
    return MalformedMessage(DeadLetterReason.BAD_BODY, f"{wanted}, got {type(value).__name__}")
