"""Arguments of a call as they were given, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amqp_tasks.errors import ConfigurationError

__all__ = ("OF_ITEMS", "item_task", "keywords", "positional", "several")

OF_ITEMS = frozenset({"celery.map", "celery.starmap", "celery.chunks"})
"""The tasks that run another one for each of many items."""


def positional(args: Sequence[Any] | None) -> Sequence[Any]:
    """`args` of a call, checked: a string would be taken apart into characters.

    Raises:
        TypeError: not a list, tuple or similar.
    """
    if args is None:
        return ()
    if isinstance(args, list | tuple):
        return args
    # Callers without a type checker pass anything.
    if isinstance(args, str | bytes | bytearray) or not isinstance(args, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"args must be a list or tuple, got {type(args).__name__}: write args=(value,)")
    return args


def keywords(kwargs: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """`kwargs` of a call, checked.

    Raises:
        TypeError: not a mapping.
    """
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - see positional
        raise TypeError(f"kwargs must be a mapping, got {type(kwargs).__name__}")
    return kwargs


def several(given: str | Iterable[str], what: str) -> list[str]:
    """One text or several, each once: one is not taken apart into characters.

    Args:
        given: by the caller.
        what: each of them is, for the error.

    Raises:
        ConfigurationError: it is neither, or one of them is no text.
    """
    # Callers without a type checker pass anything.
    is_many = isinstance(given, Iterable) and not isinstance(given, str | bytes | bytearray)  # pyright: ignore[reportUnnecessaryIsInstance]
    texts: list[str] = list(given) if is_many else [given]  # type: ignore[list-item]
    for each in texts:
        if not isinstance(each, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{what} must be text, got {each!r:.80}: give one, or a list of them")
    return list(dict.fromkeys(texts))


def item_task(kwargs: Mapping[str, Any]) -> str | None:
    """The name of the task that `map`, `starmap` and `chunks` run for each item, of their message's keyword arguments."""
    call: Any = kwargs.get("task")
    name: Any = call.get("task") if isinstance(call, Mapping) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return name if isinstance(name, str) else None
