"""Which part of a value a serializer cannot write, for errors that name it. Only runs after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ("describe_culprit",)

_MAX_STEPS = 64
_HINTS = {
    "set": "make it a list",
    "frozenset": "make it a list",
    "generator": "make it a list",
    "bytearray": "make it bytes",
    "memoryview": "make it bytes",
    "timedelta": "send total_seconds()",
}


def describe_culprit(value: Any, *, root: str, parts: tuple[str, ...], encode: Callable[[Any], Any]) -> str:
    """Name path and type of what `encode` refuses, e.g. `args[1]['x']: socket.socket`.

    Args:
        value: what could not be encoded.
        root: the name of `value` itself.
        parts: names for the items of `value`, when it is a sequence of named parts.
        encode: the encoder; called on ever smaller pieces.
    """
    path, culprit = root, value
    if parts:
        named = zip(parts, value, strict=True)
        path, culprit = next(((name, part) for name, part in named if _fails(part, encode)), (root, value))
    for _ in range(_MAX_STEPS):
        step = next(((key, child) for key, child in _children(culprit) if _fails(child, encode)), None)
        if step is None:
            return _describe(path, culprit, encode)
        path, culprit = path + step[0], step[1]
    return f"{path[:120]}…: nested too deeply, or contains itself"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():  # pyright: ignore[reportUnknownVariableType] - a user's mapping
            yield f"[{_short(key)}]", child
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield f"[{index}]", child


def _fails(value: Any, encode: Callable[[Any], Any]) -> bool:
    try:
        encode(value)
    except (Exception, SystemExit):  # noqa: BLE001 - encoders run the values' own code, which may raise anything
        return True
    return False


def _describe(path: str, culprit: Any, encode: Callable[[Any], Any]) -> str:
    if isinstance(culprit, dict):
        for key in culprit:  # pyright: ignore[reportUnknownVariableType] - a user's dict
            if _fails({key: None}, encode):
                return f"{path} has the key {_short(key)}: {_type_name(key)}; keys must be text"
    name = _type_name(culprit)  # pyright: ignore[reportUnknownArgumentType] - anything
    hint = _HINTS.get(name.rpartition(".")[2])
    return f"{path}: {name}{'; ' + hint if hint else ''}"


def _type_name(value: Any) -> str:
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType] - anything
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - a user's __repr__
        text = f"<{_type_name(key)}>"
    return text if len(text) <= 40 else text[:39] + "…"
