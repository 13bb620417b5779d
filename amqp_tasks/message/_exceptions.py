"""Exceptions as data, and back only into classes that the reader chose before it saw the message."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from amqp_tasks import errors
from amqp_tasks.errors import (
    AmqpTasksError,
    ChordError,
    InvalidArguments,
    MaxRetriesExceededError,
    NotRegistered,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskExpired,
    TaskPredicate,
    TaskRevokedError,
    TimeLimitExceeded,
)
from amqp_tasks.message._printable import bounded_repr
from amqp_tasks.serialization._json import encode_json_text

__all__ = ("exception_from_data", "exception_to_data")

_MAX_ARGUMENT = 16 * 1024
_MAX_ARGUMENTS = 32
_MAX_NAME = 255
_PLAIN = (str, int, float, bool, type(None))

# Stock clients find these classes among their own, so isinstance checks on their side hold.
_CELERY_NAMES: MappingProxyType[type[BaseException], tuple[str, str]] = MappingProxyType(
    {
        MaxRetriesExceededError: ("celery.exceptions", "MaxRetriesExceededError"),
        ChordError: ("celery.exceptions", "ChordError"),
        NotRegistered: ("celery.exceptions", "NotRegistered"),
        TaskRevokedError: ("celery.exceptions", "TaskRevokedError"),
        TaskExpired: ("celery.exceptions", "TaskRevokedError"),
        InvalidArguments: ("builtins", "TypeError"),
        SoftTimeLimitExceeded: ("billiard.exceptions", "SoftTimeLimitExceeded"),
        TimeLimitExceeded: ("billiard.exceptions", "TimeLimitExceeded"),
    }
)
# Where several of ours share one of theirs, a key that stock clients ignore tells our own which it was.
_NARROWER: MappingProxyType[tuple[str, str], dict[str, type[Exception]]] = MappingProxyType(
    {
        ("celery.exceptions", "TaskRevokedError"): {"TaskExpired": TaskExpired},
        ("builtins", "TypeError"): {"InvalidArguments": InvalidArguments},
    }
)

# Harmless to construct from JSON values. Not the ones that steer the interpreter: raised again far from their cause,
# they would end a loop, a generator or the process.
_STEERING = (StopIteration, StopAsyncIteration)
_BUILT_IN: dict[tuple[str, str], type[Exception]] = {
    ("builtins", name): kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (*_STEERING, Warning))
}


def _takes_message_only(kind: type[AmqpTasksError]) -> bool:
    """Whether the class leaves `__init__` alone, so that its `args` rebuild it."""
    return not any("__init__" in vars(base) for base in kind.__mro__ if issubclass(base, AmqpTasksError))


_OWN: dict[tuple[str, str], type[Exception]] = {
    ("amqp_tasks.errors", name): kind
    for name in errors.__all__
    if _takes_message_only(kind := getattr(errors, name))
    # These steer tasks: one that comes out of a result must not end the task that waits for it as if it had said so.
    and not issubclass(kind, TaskPredicate)
}
_KNOWN = MappingProxyType(
    {
        **_BUILT_IN,
        **_OWN,
        ("celery.exceptions", "ChordError"): ChordError,
        ("celery.exceptions", "MaxRetriesExceededError"): MaxRetriesExceededError,
        ("celery.exceptions", "NotRegistered"): NotRegistered,
        ("celery.exceptions", "TaskRevokedError"): TaskRevokedError,
        ("billiard.exceptions", "SoftTimeLimitExceeded"): SoftTimeLimitExceeded,
        ("billiard.exceptions", "TimeLimitExceeded"): TimeLimitExceeded,
    }
)


def exception_to_data(exc: BaseException) -> dict[str, Any]:
    """An exception as Celery writes it: `exc_type`, `exc_message` (its arguments as an array), `exc_module`.

    `exc_own` is there only where Celery's name is wider than the class, and `exc_cause`, of the same shape, only where a
    `ChordError` has a cause that is not very large. Arguments that JSON cannot hold, or that are very large, are replaced
    by a bounded repr. Never raises.
    """
    kind = type(exc)
    module, name = _CELERY_NAMES.get(kind, (kind.__module__, kind.__qualname__))
    try:
        args = tuple(exc.args)
    except (Exception, SystemExit):  # noqa: BLE001 - a class may define `args` anew
        args = (bounded_repr(exc),)
    data: dict[str, Any] = {
        "exc_type": name,
        "exc_message": [_plain_argument(argument) for argument in args[:_MAX_ARGUMENTS]],
        "exc_module": module,
    }
    if kind.__name__ in _NARROWER.get((module, name), ()):
        data["exc_own"] = kind.__name__
    if kind is ChordError and (cause := _cause_to_data(exc.__cause__)) is not None:
        data["exc_cause"] = cause
    return data


def _cause_to_data(cause: BaseException | None) -> dict[str, Any] | None:
    """None where there is none, or it is too large to travel beside an error whose text tells of it in any case."""
    if cause is None:
        return None
    data = exception_to_data(cause)
    data.pop("exc_cause", None)  # one is enough: chords of chords are of any depth
    if isinstance(cause, RemoteError):  # of a class that is not known here, but perhaps where it is read
        args = [_plain_argument(argument) for argument in cause.exc_args[:_MAX_ARGUMENTS]]
        data |= {"exc_type": cause.exc_type, "exc_message": args, "exc_module": cause.exc_module}
    return data if _plain_argument(data) is data else None


def _plain_argument(argument: Any) -> Any:
    if type(argument) in _PLAIN and (type(argument) is not str or len(argument) <= _MAX_ARGUMENT):
        if type(argument) is not int or abs(argument) < 2**64:
            return argument
    elif isinstance(argument, str):
        return argument[:_MAX_ARGUMENT] + "..." if len(argument) > _MAX_ARGUMENT else str(argument)
    try:
        return argument if len(encode_json_text(argument)) <= _MAX_ARGUMENT else bounded_repr(argument)
    except (Exception, SystemExit):  # noqa: BLE001 - any object may be an argument, with any code behind `__json__`
        return bounded_repr(argument)


def exception_from_data(
    data: object, allowed: Collection[type[Exception] | str] = (), *, traceback: str | None = None
) -> Exception:
    """The exception to raise for a failure read from a result message.

    Built-in exceptions, our own and the allowed ones come back as their class; everything else, and whatever a
    class's constructor refuses, as `RemoteError`. Nothing is imported and nothing is called that `allowed` does not
    name, whatever the message says.

    Args:
        data: the `result` of a message whose state is FAILURE, RETRY or REVOKED; any shape.
        allowed: classes, or dotted names that are looked up in modules already imported.
        traceback: the remote traceback's text, kept on a `RemoteError`.
    """
    exc = _rebuilt(data, allowed, traceback)
    cause: object = data.get("exc_cause") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(exc, ChordError) and isinstance(cause, dict):
        exc.__cause__ = _rebuilt(cause, allowed, None)  # pyright: ignore[reportUnknownArgumentType]
    return exc


def _rebuilt(data: object, allowed: Collection[type[Exception] | str], traceback: str | None) -> Exception:
    name, module, args = _read_parts(data)
    kind = _find_narrower(data, module, name) or _find_class(module, name, allowed)
    if kind is not None:
        try:
            exc = kind(*args)
        except Exception:  # noqa: BLE001 - a constructor that these arguments do not fit
            exc = None
        if isinstance(exc, Exception):
            return exc
    return RemoteError(name, args, exc_module=module, remote_traceback=traceback)


def _read_parts(data: object) -> tuple[str, str, tuple[Any, ...]]:
    if not isinstance(data, dict):
        return "Exception", "", (data,)
    found: dict[str, Any] = data  # pyright: ignore[reportUnknownVariableType] - keys are only looked up
    name, module, args = found.get("exc_type"), found.get("exc_module"), found.get("exc_message", ())
    if not isinstance(name, str) or not name:
        name = "Exception"
    if not isinstance(module, str):
        module = ""
    return name[:_MAX_NAME], module[:_MAX_NAME], _as_tuple(args)


def _as_tuple(args: Any) -> tuple[Any, ...]:
    return tuple(args) if isinstance(args, list | tuple) else (args,)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _find_narrower(data: object, module: str, name: str) -> type[Exception] | None:
    own: object = data.get("exc_own") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return _NARROWER.get((module, name), {}).get(own) if isinstance(own, str) else None


def _find_class(module: str, name: str, allowed: Collection[type[Exception] | str]) -> type[Exception] | None:
    for choice in allowed:
        if isinstance(choice, str):
            if choice == f"{module}.{name}":
                return _loaded_class(module, name)
        elif choice.__module__ == module and choice.__qualname__ == name:
            return choice
    return _KNOWN.get((module, name))


def _loaded_class(module: str, name: str) -> type[Exception] | None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
