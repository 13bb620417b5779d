"""Dead letters as rows, as text and as JSON; whatever they hold is safe to show, and passwords in it are masked."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from amqp_tasks.app._builtins import is_builtin
from amqp_tasks.cli._output import finite
from amqp_tasks.errors import ConfigurationError, MalformedMessage
from amqp_tasks.message import Limits, printable
from amqp_tasks.message._envelope import read_body
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

    The task says so where it is registered here, and what its sender wrote in `argsrepr` where it is not. A body holds calls of
    other tasks as well: of what follows in a workflow, of what an errback or a watch is about. Of these nobody wrote anything, so one of
    a task that is not registered here counts as sensitive.
    """
    task = tasks.get(letter.task) if letter.task is not None else None
    shown = f"{letter.argsrepr}{letter.kwargsrepr}"
    is_sensitive = HIDDEN in shown or bool(task is not None and task.sensitive)
    if is_sensitive or any(_may_be_sensitive(call, tasks) for call in _calls_in(_content(letter))):
        return replace(letter, body=None)
    return letter


def _may_be_sensitive(call: Mapping[str, Any], tasks: Mapping[str, Task[..., Any]]) -> bool:
    name = call["task"]
    task = tasks.get(name)
    if task is not None:
        return bool(task.sensitive)
    return not is_builtin(name) and ("args" in call or "kwargs" in call)


def _content(letter: DeadLetter) -> Any:
    """The decoded body; None where it cannot be read, as that of a message which is no task's."""
    if not letter.body or not letter.content_type:
        return None
    compression = letter.headers.get("compression")
    try:
        return read_body(
            letter.content_type, None, compression if isinstance(compression, str) else None, letter.body,
            accept=(letter.content_type,), limits=Limits(max_message_bytes=len(letter.body)),
        )  # fmt: skip
    except (MalformedMessage, ConfigurationError):
        return None


def _calls_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """All that has the form of a call, however deep; a container that is there several times, as YAML can have it, once."""
    todo, seen = [content], set[int]()
    while todo:
        item = todo.pop()
        if not isinstance(item, dict | list | tuple) or id(item) in seen:  # pyright: ignore[reportUnknownArgumentType] - any container
            continue
        seen.add(id(item))  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(item, dict):
            found: dict[Any, Any] = item  # pyright: ignore[reportUnknownVariableType]
            if isinstance(found.get("task"), str):
                yield found
            todo += found.values()
        else:
            todo += cast("Sequence[Any]", item)


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
        yield f"{'':14}not shown, as it holds sensitive arguments, or those of a task that is not registered here"
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
            return finite(value)
        case str():
            return _text(value)
        case dict():
            return {_text(str(key)): _plain(item) for key, item in cast("dict[object, Any]", value).items()}
        case list():
            return [_plain(item) for item in cast("list[object]", value)]
        case _:
            return _text(str(value))
