"""How the fields of signatures compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("is_same",)


def is_same(one: Any, other: Any) -> bool:
    """Whether they are equal, where a tuple is equal to a list of the same values, as JSON makes one of it, however deep."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(map(is_same, one.values(), map(other.__getitem__, one)))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return bool(one == other)
