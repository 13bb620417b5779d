"""Which headers belong to whom, and which values an AMQP field table can hold."""

from __future__ import annotations

import math
from calendar import timegm
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from amqp_tasks.errors import ConfigurationError, EncodeError
from amqp_tasks.message._decimals import table_decimal
from amqp_tasks.message._printable import bounded_repr

__all__ = (
    "ERROR_TIME",
    "FIRST_ERROR_TIME",
    "IDEMPOTENCY_HEADER",
    "JOINS_HEADER",
    "PROTOCOL_HEADERS",
    "RATE_HEADER",
    "REQUEUES_HEADER",
    "SIGNATURE_HEADER",
    "SNOOZES_HEADER",
    "STEP_HEADER",
    "check_short",
    "check_user_headers",
    "is_broker_header",
    "is_table_value",
    "read_count",
    "table_size",
)

PROTOCOL_HEADERS = frozenset(
    {
        "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
        "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
        "stamps", "compression",
    }
)  # fmt: skip
"""What task protocol 2 defines; users' headers stand beside these at the top level."""

ERROR_TIME = "x-error-time"
"""When a dead letter was set aside, ISO 8601; a task that has it was moved back as it lay there, by other tools than ours."""
FIRST_ERROR_TIME = "x-error-first-time"
"""When the task first failed, ISO 8601; a retry carries it on to the next attempt, and a dead letter keeps it."""
SNOOZES_HEADER = "x-amqp-tasks-snoozes"
"""Header that counts how often a task was put off without that being a retry; it tells those runs apart."""
REQUEUES_HEADER = "x-amqp-tasks-requeues"
"""Header that counts how often a task was sent back to its queue by `Reject(requeue=True)`."""
RATE_HEADER = "x-amqp-tasks-rate"
"""Header of a task that has waited in the broker for its turn under a rate limit: the number of the run that waits."""
JOINS_HEADER = "x-amqp-tasks-joins"
"""Header: the joins that wait for a task, each `[queue, index, size]`."""
STEP_HEADER = "x-amqp-tasks-step"
"""Header of a named step: `[workflow id, name, number of the workflow's joins]`."""
IDEMPOTENCY_HEADER = "x-amqp-tasks-idempotency-key"
"""Header that says which calls of a task are the same one."""
SIGNATURE_HEADER = "x-amqp-tasks-signature"
"""Header of a signed message: version, id of the key and signature, with colons between them."""

_BROKER_HEADERS = frozenset({"x-death", "x-delivery-count", "x-acquired-count"})
_BROKER_PREFIXES = ("x-first-death-", "x-last-death-")
MAX_SHORT = 255
_INT_RANGE = range(-(2**63), 2**63)
MAX_COUNT = 2**31
_COUNTS = range(1, MAX_COUNT)
"""Of the notes that count. Anybody may change them, as they are not signed: one more than a larger one may fit into no header."""


def is_broker_header(name: str) -> bool:
    """Whether RabbitMQ added it on the way; it must not be published again."""
    return name in _BROKER_HEADERS or name.startswith(_BROKER_PREFIXES)


def read_count(headers: Mapping[str, Any], name: str) -> int:
    """How often something was noted; 0 where the note is none that we have written."""
    count = headers.get(name)
    return count if type(count) is int and count in _COUNTS else 0


def check_user_headers(headers: Mapping[str, Any]) -> None:
    """Check headers that a caller gave.

    Raises:
        ConfigurationError: a name that the protocol or the broker owns.
        EncodeError: a name or value that no AMQP table can hold; the message names it.
    """
    for name, value in headers.items():
        if not _is_short_text(name):
            raise EncodeError(
                f"headers has the key {name!r:.60}; keys must be text of at most {MAX_SHORT} bytes"
            )
        if name in PROTOCOL_HEADERS or is_broker_header(name):
            raise ConfigurationError(
                f"header {name!r} belongs to the task protocol; use the option of that meaning"
            )
        if not is_table_value(value):
            raise EncodeError(
                f"headers[{name!r}]: {bounded_repr(value, 60)} ({type(value).__qualname__}) cannot be an AMQP header value"
            )


def check_short(text: Any, what: str) -> str:
    """Return the text when AMQP can hold it as a short string; `what` names it in the error.

    Raises:
        ConfigurationError: not text, empty, longer than 255 bytes of UTF-8, or not encodable.
    """
    if type(text) is str and 0 < len(text) <= MAX_SHORT and text.isascii():
        return text
    if not isinstance(text, str) or not text:
        raise ConfigurationError(f"a {what} must be text of 1 to {MAX_SHORT} bytes, got {text!r:.60}")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"{what} {text!r:.60} cannot be written as UTF-8") from exc
    if size > MAX_SHORT:
        raise ConfigurationError(f"{what} {text[:40]!r}… takes {size} bytes, at most {MAX_SHORT} fit")
    return text


def _is_short_text(text: object) -> bool:
    return (
        isinstance(text, str)
        and len(text) <= MAX_SHORT
        and _is_utf8(text)
        and len(text.encode()) <= MAX_SHORT
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_table_value(value: Any, depth: int = 32) -> bool:
    """Whether an AMQP field table can hold the value, at any depth."""
    match value:
        case None | bool() | bytes():
            return True
        case float():
            # The broker closes the connection over NaN or an infinity, and over each attempt to send it again.
            return math.isfinite(value)
        case datetime():
            return timegm(value.utctimetuple()) >= 0
        case str():
            return value.isascii() or _is_utf8(value)
        case int():
            return value in _INT_RANGE
        case Decimal():
            return table_decimal(value) is not None
        case list():
            return depth > 0 and all(is_table_value(item, depth - 1) for item in value)  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return depth > 0 and all(
                _is_short_text(key) and is_table_value(item, depth - 1)  # pyright: ignore[reportUnknownArgumentType]
                for key, item in value.items()  # pyright: ignore[reportUnknownVariableType]
            )
        case _:
            return False


def table_size(value: Any) -> int:
    """About how many bytes a header value takes on the wire, never much fewer."""
    match value:
        case str():
            return 5 + len(value.encode("utf-8", "replace"))
        case bytes():
            return 5 + len(value)
        case list():
            return 5 + sum(map(table_size, value))  # pyright: ignore[reportUnknownArgumentType]
        case dict():
            return 5 + sum(6 + len(f"{key}".encode()) + table_size(item) for key, item in value.items())  # pyright: ignore[reportUnknownVariableType]
        case _:
            return 9
