"""Task messages, read: headers first, the body only after they were found good."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeGuard

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import HeaderValue, Properties
from amqp_tasks.message._headers import (
    MAX_COUNT,
    MAX_SHORT,
    PROTOCOL_HEADERS,
    REQUEUES_HEADER,
    SNOOZES_HEADER,
    is_broker_header,
    read_count,
)
from amqp_tasks.message._printable import MAX_REPR, printable
from amqp_tasks.serialization import DEFAULT_LIMITS, Limits, decompress, loads
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("Envelope", "Payload", "read_body", "read_envelope", "read_payload")


# Not frozen, as Properties: one is made per delivery. Treat as read-only.
@dataclass(slots=True)
class Envelope:
    """What the headers and properties of a task message say, checked. Void and missing headers read the same."""

    id: str
    task: str
    retries: int
    time_limit: float | None
    soft_time_limit: float | None
    eta: datetime | None
    expires: datetime | None
    root_id: str
    parent_id: str | None
    group: str | None
    group_index: int | None
    shadow: str | None
    origin: str | None
    lang: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    ignore_result: bool | None
    compression: str | None
    content_type: str | None
    content_encoding: str | None
    reply_to: str
    correlation_id: str
    priority: int
    headers: Mapping[str, HeaderValue]
    """All headers as received."""
    properties: Properties
    """As received; treat as read-only."""

    @property
    def user_headers(self) -> dict[str, HeaderValue]:
        """The headers that neither the protocol nor RabbitMQ owns."""
        others = self.headers.keys() - PROTOCOL_HEADERS
        if not others:
            return {}
        return {
            name: value
            for name, value in self.headers.items()
            if name in others and not is_broker_header(name)
        }

    @property
    def snoozes(self) -> int:
        """How often it was put off without that being a retry."""
        return self._count(SNOOZES_HEADER)

    @property
    def requeues(self) -> int:
        """How often it was sent back to its queue by its own will, as a copy."""
        return self._count(REQUEUES_HEADER)

    @property
    def runs(self) -> int:
        """How many runs of it have ended before: retries and snoozes."""
        return self.retries + self.snoozes

    @property
    def delivery_count(self) -> int:
        """How often a quorum queue has delivered this message before (`x-delivery-count`); 0 where it is not told."""
        return self._count("x-delivery-count")

    def _count(self, header: str) -> int:
        return read_count(self.headers, header)


@dataclass(slots=True)
class Payload:
    """The three parts of a task message's body."""

    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]
    """`callbacks`, `errbacks`, `chain` (arrays or None) and `chord` (object or None); keys may be missing."""


_INT = (int,)
_TEXT = (str,)
_TABLE: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("root_id", _TEXT, "text"),
    ("parent_id", _TEXT, "text"),
    ("group", _TEXT, "text"),
    ("shadow", _TEXT, "text"),
    ("origin", _TEXT, "text"),
    ("lang", _TEXT, "text"),
    ("compression", _TEXT, "text"),
    ("group_index", _INT, "an integer"),
    ("ignore_result", (bool,), "a boolean"),
)


def read_envelope(properties: Properties) -> Envelope:
    """Read headers and properties of a task message.

    Raises:
        MalformedMessage: `missing-header` or `bad-headers`; its `task_id` is set where the id could be read.
    """
    headers = properties.headers if properties.template is None else properties.all_headers()
    get = headers.get
    task_id = _read_identity(get("id"), get("task"))
    try:
        # The usual answer, void, without a call.
        found = [
            None if (value := get(name)) is None else _read_optional(value, name, kinds, wanted)
            for name, kinds, wanted in _TABLE
        ]
        root_id, parent_id, group, shadow, origin, lang, compression, group_index, ignore_result = found
        hard, soft = _read_time_limits(get("timelimit"))
        return Envelope(
            task_id, get("task"), _read_retries(get("retries")), hard, soft,  # type: ignore[arg-type]  # checked above
            _read_time(get("eta"), "eta"), _read_time(get("expires"), "expires"),
            root_id or task_id, parent_id, group, group_index, shadow, origin, lang,
            _read_label(get("argsrepr")), _read_label(get("kwargsrepr")), ignore_result, compression,
            properties.content_type, properties.content_encoding, properties.reply_to or "",
            properties.correlation_id or task_id, properties.priority or 0, headers, properties,
        )  # fmt: skip
    except MalformedMessage as exc:
        exc.task_id = task_id
        raise


def _read_identity(task_id: Any, task: Any) -> str:
    """The checked id; the name is checked as well."""
    if task is None:
        raise MalformedMessage(
            DeadLetterReason.MISSING_HEADER,
            "no 'task' header: a message of task protocol 1, or no task message at all",
        )
    if task_id is None:
        raise MalformedMessage(DeadLetterReason.MISSING_HEADER, "no 'id' header")
    if not _is_short(task_id):
        raise _bad("id", f"text of 1 to {MAX_SHORT} bytes", task_id)
    if not _is_short(task):
        fault = _bad("task", f"text of 1 to {MAX_SHORT} bytes", task)
        fault.task_id = task_id
        raise fault
    return task_id


def _is_short(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SHORT:
        return False
    if value.isascii():
        return True
    try:
        return len(value.encode("utf-8")) <= MAX_SHORT
    except UnicodeEncodeError:
        return False


def _read_optional(value: HeaderValue, name: str, kinds: tuple[type, ...], wanted: str) -> Any:
    if not isinstance(value, kinds) or (kinds is _INT and isinstance(value, bool)):
        raise _bad(name, wanted, value)
    if isinstance(value, str) and len(value) > MAX_REPR:
        raise _bad(name, f"text of at most {MAX_REPR} characters", value)
    return value


def _read_label(value: HeaderValue) -> str | None:
    # Only for people's eyes, so whatever is there is not worth refusing a task for.
    if isinstance(value, str):
        return value if len(value) <= MAX_REPR else value[:MAX_REPR]
    return None


def _read_retries(value: HeaderValue) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        raise _bad("retries", f"a number from 0 to {MAX_COUNT - 1}", value)
    return value


def _read_time_limits(value: HeaderValue) -> tuple[float | None, float | None]:
    """Hard, then soft."""
    if value is None or value == [None, None]:
        return None, None
    if not isinstance(value, list) or len(value) != 2:  # pyright: ignore[reportUnknownArgumentType] - any list
        raise _bad("timelimit", "[hard, soft]", value)
    hard, soft = value  # pyright: ignore[reportUnknownVariableType]
    return _read_seconds(hard), _read_seconds(soft)


def _read_seconds(value: HeaderValue) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _bad("timelimit", "seconds", value)
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise _bad("timelimit", "seconds", value)
    return seconds or None


def _read_time(value: HeaderValue, name: str) -> datetime | None:
    """An aware datetime in UTC; without offset it means UTC."""
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _bad(name, "an ISO 8601 time", value) from exc


def _bad(name: str, wanted: str, value: HeaderValue) -> MalformedMessage:
    got = f"{type(value).__name__} {printable(value, 60)}"
    return MalformedMessage(DeadLetterReason.BAD_HEADERS, f"header {name!r} must be {wanted}, got {got}")


def read_body(
    content_type: str | None,
    content_encoding: str | None,
    compression: str | None,
    body: bytes,
    accept: Collection[str],
    limits: Limits,
) -> Any:
    """Decompress and decode within the limits.

    Raises:
        MalformedMessage: `too-large`, or see `decompress` and `loads`.
    """
    if len(body) > limits.max_message_bytes:
        raise MalformedMessage(
            DeadLetterReason.TOO_LARGE, f"{len(body)} bytes, at most {limits.max_message_bytes} are accepted"
        )
    if compression:
        body = decompress(body, compression, limits=limits)
    return loads(content_type, content_encoding, body, accept=accept, limits=limits)


def read_payload(
    envelope: Envelope, body: bytes, *, accept: Collection[str], limits: Limits = DEFAULT_LIMITS
) -> Payload:
    """Read the body of a task message.

    Args:
        envelope: from `read_envelope`.
        body: as received.
        accept: serializer names or content types; give a tuple on hot paths.
        limits: see `Limits`.

    Raises:
        MalformedMessage: see `DeadLetterReason`; its `task_id` is set.
        ConfigurationError: the accept list itself is wrong.
    """
    try:
        value = read_body(
            envelope.content_type, envelope.content_encoding, envelope.compression, body, accept, limits
        )
        return _split(value)
    except MalformedMessage as exc:
        exc.task_id = envelope.id
        raise


def _split(value: Any) -> Payload:
    if not isinstance(value, list | tuple) or len(value) != 3:  # pyright: ignore[reportUnknownArgumentType] - any list
        raise _bad_body("must be [args, kwargs, embed]", value)
    args, kwargs, embed = value  # pyright: ignore[reportUnknownVariableType] - checked next
    if not isinstance(args, list):
        if not isinstance(args, tuple):
            raise _bad_body("args must be an array", args)
        args = list(args)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not isinstance(kwargs, dict) or (kwargs and not all(isinstance(key, str) for key in kwargs)):  # pyright: ignore[reportUnknownVariableType]
        raise _bad_body("kwargs must be an object with text keys", kwargs)
    if embed is None:
        embed = {}
    elif not isinstance(embed, dict):
        raise _bad_body("embed must be an object", embed)
    _check_embed(embed)  # pyright: ignore[reportUnknownArgumentType]
    return Payload(args, kwargs, embed)  # pyright: ignore[reportUnknownArgumentType]


_NO_EMBED = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))


def _check_embed(embed: dict[str, Any]) -> None:
    if _NO_EMBED.items() >= embed.items():
        return
    for name in ("callbacks", "errbacks", "chain"):
        part = embed.get(name)
        if part is not None and not isinstance(part, list | tuple):
            raise _bad_body(f"embed.{name} must be an array", part)
    chord = embed.get("chord")
    if chord is not None and not isinstance(chord, dict):
        raise _bad_body("embed.chord must be an object", chord)


def _bad_body(wanted: str, value: Any) -> MalformedMessage:
    # The type only: a body holds users' data, which must not get into logs.
    return MalformedMessage(DeadLetterReason.BAD_BODY, f"{wanted}, got {type(value).__name__}")
