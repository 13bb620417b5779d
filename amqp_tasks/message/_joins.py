"""What travels between the tasks of a chord's header and its join queue.

A task that is waited for says so in a header, which can be read where its body cannot. The queue holds one definition (what
is to be run) and one outcome from each task, perhaps twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._exceptions import exception_to_data
from amqp_tasks.serialization import DEFAULT_LIMITS, JSON_TYPE, Limits, dumps, loads
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "JOINS_HEADER",
    "JOIN_PREFIX",
    "JoinOutcome",
    "definition_message",
    "outcome_message",
    "read_join",
    "read_joins",
)

JOIN_PREFIX = "amqp_tasks.join."
"""Names of join queues begin so. A header that names another queue is passed over: its messages are nobody's outcomes."""

JOINS_HEADER = "x-amqp-tasks-joins"
"""Header: the joins that wait for a task, each `[queue, index, size]`."""

_DEFINITION, _OUTCOME = "join-definition", "join-outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOutcome:
    """How one task of a header ended.

    Attributes:
        index: its place.
        task_id: its id.
        value: what it returned.
        error: the exception as data, when it failed.
        added: how many tasks it added to the header.
    """

    index: int
    task_id: str
    value: Any = None
    error: Mapping[str, Any] | None = None
    added: int = 0


def definition_message(queue: str, definition: Mapping[str, Any]) -> OutgoingMessage:
    """What a join is for.

    Raises:
        EncodeError: an argument in it cannot be written.
    """
    return _message(queue, _DEFINITION, definition)


def outcome_message(
    queue: str, index: int, task_id: str, *, value: Any = None, error: Exception | None = None, added: int = 0
) -> OutgoingMessage:
    """How a task ended, for a join that waits for it.

    Raises:
        EncodeError: the value cannot be written.
    """
    told = {
        "index": index, "task_id": task_id, "value": value, "added": added,
        "error": None if error is None else exception_to_data(error),
    }  # fmt: skip
    return _message(queue, _OUTCOME, told)


def _message(queue: str, kind: str, content: Mapping[str, Any]) -> OutgoingMessage:
    content_type, encoding, body = dumps("json", content, root="outcome in a workflow")
    properties = Properties(
        content_type=content_type, content_encoding=encoding, delivery_mode=2, type=kind, headers={}
    )
    return OutgoingMessage(exchange="", routing_key=queue, body=body, properties=properties)


def read_join(
    properties: Properties, body: bytes, *, limits: Limits = DEFAULT_LIMITS
) -> JoinOutcome | dict[str, Any]:
    """An outcome, or the definition as a mapping.

    Raises:
        MalformedMessage: neither.
    """
    content = loads(
        properties.content_type, properties.content_encoding, body, accept=(JSON_TYPE,), limits=limits
    )
    if isinstance(content, dict):
        told: dict[str, Any] = content  # pyright: ignore[reportUnknownVariableType]
        if properties.type == _DEFINITION and _is_definition(told):
            return told
        if properties.type == _OUTCOME and isinstance(told.get("index"), int):
            error = told.get("error")
            added = told.get("added")
            return JoinOutcome(
                index=told["index"],
                task_id=str(told.get("task_id")),
                value=told.get("value"),
                error=error if isinstance(error, dict) else None,  # pyright: ignore[reportUnknownArgumentType]
                added=added if isinstance(added, int) else 0,
            )
    raise MalformedMessage(DeadLetterReason.BAD_BODY, "no message of a workflow's join")


def _is_definition(told: Mapping[str, Any]) -> bool:
    joins: Any = told.get("joins") or []
    return (
        isinstance(told.get("size"), int)
        and isinstance(told.get("body"), dict)
        and isinstance(told.get("chain") or [], list)
        and isinstance(joins, list)
        and all(_join(item) is not None for item in _items(joins))
    )


def read_joins(headers: Mapping[str, HeaderValue]) -> list[tuple[str, int, int]]:
    """The joins that wait for a task: queue, index and size of each; what is not well formed is passed over."""
    found: Any = headers.get(JOINS_HEADER)
    return [] if not isinstance(found, list) else [join for item in _items(found) if (join := _join(item))]


def _items(found: Any) -> Sequence[Any]:
    return found  # type: ignore[no-any-return]


def _join(item: Any) -> tuple[str, int, int] | None:
    match item:
        case [str(queue), int(index), int(size)] if queue.startswith(JOIN_PREFIX):
            return queue, index, size
        case _:
            return None
