"""What the fields of a signature are: dictionaries that nobody can change, and how they compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

__all__ = ("NOTHING", "ReadOnly", "owned")


class ReadOnly(dict[str, Any]):
    """A dictionary that cannot be changed; copies of it are plain ones."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return _is_same(self, other) if isinstance(other, Mapping) else NotImplemented

    # That of dict would not ask __eq__.
    __ne__ = object.__ne__
    __hash__ = None  # as that of dict

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (dict(self),)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a signature cannot be changed: set(), clone() and link() return a changed copy")

    # Whatever the arguments are, the answer is the same, so their types are nobody's business.
    if not TYPE_CHECKING:
        __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse


NOTHING = ReadOnly()
"""An empty one."""


def owned(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields of a signature, arguments and options in containers of its own that cannot be changed."""
    for name, form in _FORMS:
        if name in fields:
            fields[name] = form(fields[name])
    return fields


_FORMS: tuple[tuple[str, type], ...] = (("args", tuple), ("kwargs", ReadOnly), ("options", ReadOnly))


def _is_same(one: Any, other: Any) -> bool:
    """Whether they are equal, where a tuple is equal to a list of the same values, as JSON makes one of it, however deep."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(map(_is_same, one.values(), map(other.__getitem__, one)))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return bool(one == other)
