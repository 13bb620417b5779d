"""AMQP messages as values: what a transport publishes and what a received message tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = (
    "SIGNED_AS_RESULT",
    "SIGNED_AS_TASK",
    "HeaderTemplate",
    "HeaderValue",
    "OutgoingMessage",
    "Properties",
    "signed_for_queue",
)

HeaderValue = Any
"""What an AMQP field table holds: None, bool, int, float, str, bytes, Decimal, datetime, list, dict."""

SIGNED_AS_TASK, SIGNED_AS_RESULT = "task", "result"


def signed_for_queue(name: str) -> str:
    """As what a message is signed that means something in one queue only: an entry of a stream, an outcome in a join."""
    return f"queue {name}"


class HeaderTemplate:
    """Headers that every message of one task type shares, so that they are encoded once.

    `items` must not change after the first publish. `encoded` is written by a transport and `signed` by a `KeyRing` (any thread;
    the value is always the same, so a race only does the work twice).
    """

    __slots__ = ("encoded", "items", "signed")

    def __init__(self, items: Mapping[str, HeaderValue]) -> None:
        self.items = dict(items)
        self.encoded: bytes | None = None
        self.signed: list[bytes] | None = None


# Not frozen: one is made per message on the hot path, and a frozen dataclass costs four times as much to build.
@dataclass(slots=True, kw_only=True)
class Properties:
    """AMQP basic properties. `headers` wins over `template` where both have a key. Treat as read-only."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, HeaderValue] = field(default_factory=dict[str, HeaderValue])
    template: HeaderTemplate | None = None
    delivery_mode: int = 2
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None

    def all_headers(self) -> dict[str, HeaderValue]:
        """Template and own headers merged."""
        return {**self.template.items, **self.headers} if self.template else dict(self.headers)


@dataclass(slots=True, kw_only=True)
class OutgoingMessage:
    """One message to publish. `message_id` in errors is its correlation id. Treat as read-only.

    `is_relayed`: the body is one that the broker already held, so `max_message_bytes`, which is about what we send
    ourselves, does not apply: a message refused for its size must still reach the dead letters.

    `is_task`: it is a task of its own, which is counted when the broker has it; a retry, say, is none.

    `delay`: seconds from the publish until the message may run; None or not above 0 is at once.

    `signed_as`: what it is, where messages are signed: `SIGNED_AS_TASK`, `SIGNED_AS_RESULT` or `signed_for_queue`, so that nothing that was
    signed as one is taken for another. None: it is not signed here, and keeps the signature that it came with, if any: whoever
    publishes again what he has not checked must not vouch for it.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    mandatory: bool = True
    is_relayed: bool = False
    delay: float | None = None
    is_task: bool = False
    signed_as: str | None = None
