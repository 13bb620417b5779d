"""Dead letters as rows, as text and as JSON; whatever they hold is safe to show, and passwords in it are masked."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from amqp_tasks.message import printable
from amqp_tasks.message._printable import HIDDEN
from amqp_tasks.settings import mask_secrets

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.message import DeadLetter

__all__ = ("HEADINGS", "as_data", "as_lines", "as_row", "without_sensitive_body")

HEADINGS = ("id", "task", "queue", "reason", "attempts", "set aside", "error")
_MAX_ERROR = 60
_MAX_LINE = 4096
_MAX_BODY = 10_000


def without_sensitive_body(letter: DeadLetter, tasks: Mapping[str, Task[..., Any]]) -> DeadLetter:
    """The letter, its body taken out where that holds arguments which logs do not show.

    The task says so where it is registered here, and what its sender wrote in `argsrepr` where it is not.
    """
    task = tasks.get(letter.task) if letter.task is not None else None
    shown = f"{letter.argsrepr}{letter.kwargsrepr}"
    is_sensitive = HIDDEN in shown or bool(task is not None and task.sensitive)
    return replace(letter, body=None) if is_sensitive else letter


def as_row(letter: DeadLetter) -> tuple[object, ...]:
    """One line of a table under `HEADINGS`."""
    error = mask_secrets(": ".join(part for part in (letter.error_type, letter.detail) if part))
    return (
        printable(letter.id), letter.task, letter.queue_name, letter.reason, letter.attempts, _shown_time(letter.time),
        printable(error, _MAX_ERROR),
    )  # fmt: skip


def as_lines(letter: DeadLetter) -> Iterator[str]:
    """All that is known of it, for people; a body that was asked for and is missing holds sensitive arguments."""
    facts = {
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue_name,
        "reason": letter.reason,
        "error": letter.error_type,
        "message": letter.detail,
        "attempts": letter.attempts,
        "first failed": _shown_time(letter.first_time),
        "set aside": _shown_time(letter.time),
        "by worker": letter.worker,
        "sent to": f"exchange={letter.exchange or '(default)'} key={letter.routing_key}",
        "args": letter.argsrepr,
        "kwargs": letter.kwargsrepr,
        "body": f"{letter.size} bytes, {letter.content_type or 'no content type'}",
    }
    for name, value in facts.items():
        if value is not None and value != "":
            yield f"{name + ':':14}{_safe(value)}"
    if letter.body is None:
        yield f"{'':14}not shown, as it holds sensitive arguments"
    for name, value in letter.headers.items():
        if value is not None:
            yield f"{'header:':14}{_safe(name)} = {_safe(value)}"
    for title, text in (("traceback", letter.traceback), ("body", _shown_body(letter.body))):
        if text:
            yield f"{title}:"
            yield from (f"    {printable(line, _MAX_LINE)}" for line in mask_secrets(text).splitlines())


def as_data(letter: DeadLetter) -> dict[str, Any]:
    """All that is known of it as plain data: JSON whatever it holds.

    A body that is no UTF-8 text is under `body_base64`.
    """
    data: dict[str, Any] = {
        "id": _text(letter.id),
        "task": _text(letter.task),
        "queue": letter.queue_name,
        "reason": _text(letter.reason),
        "message": _text(letter.detail),
        "error_type": _text(letter.error_type),
        "traceback": _text(letter.traceback),
        "attempts": letter.attempts,
        "first_time": letter.first_time.isoformat() if letter.first_time else None,
        "time": letter.time.isoformat() if letter.time else None,
        "worker": _text(letter.worker),
        "exchange": _text(letter.exchange),
        "routing_key": _text(letter.routing_key),
        "args": _text(letter.argsrepr),
        "kwargs": _text(letter.kwargsrepr),
        "headers": _plain(letter.headers),
        "content_type": _text(letter.content_type),
        "size": letter.size,
    }
    if letter.body is not None:
        try:
            data["body"] = mask_secrets(letter.body.decode("utf-8"))
        except UnicodeDecodeError:
            data["body_base64"] = base64.b64encode(letter.body).decode("ascii")
    return data


def _safe(value: object) -> str:
    return printable(mask_secrets(value if isinstance(value, str) else repr(value)), _MAX_LINE)


def _shown_time(time: datetime | None) -> str | None:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else None


def _shown_body(body: bytes | None) -> str | None:
    if not body:
        return None
    cut = body[:_MAX_BODY]
    return cut.decode("utf-8", "backslashreplace") + ("…" if len(body) > len(cut) else "")


def _text(text: str | None) -> str | None:
    # Lone surrogates are no text that JSON's readers agree on.
    return None if text is None else mask_secrets(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case str():
            return _text(value)
        case dict():
            return {_text(str(key)): _plain(item) for key, item in cast("dict[object, Any]", value).items()}
        case list():
            return [_plain(item) for item in cast("list[object]", value)]
        case _:
            return _text(str(value))
