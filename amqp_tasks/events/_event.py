"""Events as values: their exchange, their addresses and their messages, in Celery's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

from amqp_routing import Exchange, ExchangeType
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import DEFAULT_LIMITS, OutgoingMessage, Properties
from amqp_tasks.message._journal import is_time
from amqp_tasks.serialization import JSON_TYPE, dumps, loads
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "ENDS",
    "EVENTS_NAME",
    "TaskEvent",
    "binding_key",
    "event_message",
    "events_exchange",
    "read_events",
)

EVENTS_NAME = "amqp_tasks.events"

ENDS = frozenset({"task-succeeded", "task-failed", "task-revoked", "task-ignored"})
"""Types of events after which nothing more is told of a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """Something that happened to a task.

    Attributes:
        type: `task-progress`, `task-state`, `task-retried`, `task-succeeded`, `task-dead`, …
        task_id: to which task.
        hostname: the node on which it happened.
        time: seconds since 1970, by that node's clock.
        fields: what the type defines.
    """

    type: str
    task_id: str
    hostname: str
    time: float
    fields: Mapping[str, Any]

    def as_data(self) -> dict[str, Any]:
        """The JSON object on the wire."""
        return {
            **self.fields, "type": self.type, "uuid": self.task_id, "hostname": self.hostname, "timestamp": self.time,
        }  # fmt: skip


def events_exchange() -> Exchange:
    """Where events are published; what nobody has bound a queue for is dropped by the broker."""
    return Exchange(EVENTS_NAME, ExchangeType.TOPIC)


def binding_key(task_id: str) -> str:
    """The key by which a queue gets the events of one task. An id may be longer than a key, and hold dots."""
    return f"task.*.{_word(task_id)}"


def event_message(event: TaskEvent, further: Mapping[str, Any]) -> OutgoingMessage:
    """The message of an event: transient, and no matter if nobody takes it.

    Raises:
        EncodeError: a field that JSON cannot hold.
    """
    content_type, encoding, body = dumps("json", {**event.as_data(), **further}, root="event")
    properties = Properties(
        content_type=content_type,
        content_encoding=encoding,
        delivery_mode=1,
        headers={"hostname": event.hostname},
    )
    key = f"{event.type.replace('-', '.')}.{_word(event.task_id)}"
    return OutgoingMessage(
        exchange=EVENTS_NAME, routing_key=key, body=body, properties=properties, mandatory=False
    )


def read_events(properties: Properties, body: bytes) -> list[TaskEvent]:
    """The events of tasks in a message, which may hold several; others are passed over.

    Raises:
        MalformedMessage: it holds no JSON.
    """
    content = loads(
        properties.content_type, properties.content_encoding, body, accept=(JSON_TYPE,), limits=DEFAULT_LIMITS
    )
    found: list[Any] = content if isinstance(content, list) else [content]  # pyright: ignore[reportUnknownVariableType]
    return [event for item in found if (event := _event(item)) is not None]


def _event(item: Any) -> TaskEvent | None:
    if not isinstance(item, dict):
        return None
    fields = cast("dict[str, Any]", item)
    kind, task_id, time = fields.get("type"), fields.get("uuid"), fields.get("timestamp")
    if not (isinstance(kind, str) and isinstance(task_id, str) and isinstance(time, int | float)):
        return None
    if not is_time(time):
        raise MalformedMessage(DeadLetterReason.BAD_BODY, "the time of an event is no number")
    own = {"type", "uuid", "hostname", "timestamp"}
    return TaskEvent(
        type=kind,
        task_id=task_id,
        hostname=str(fields.get("hostname") or ""),
        time=float(time),
        fields={name: value for name, value in fields.items() if name not in own},
    )


def _word(task_id: str) -> str:
    return blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
