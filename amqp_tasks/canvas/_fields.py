"""What the fields of a signature are: dictionaries that nobody can change, how they compare, and where others are in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from amqp_tasks.errors import ConfigurationError

__all__ = ("NOTHING", "PARTS", "ReadOnly", "check_ends", "owned", "places")

PARTS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}
"""Where what it was made of is in its `kwargs`; it cannot be without the first."""


_REMEDIES = {
    **{name: f"replace({name}=...) returns a changed copy" for name in ("args", "kwargs", "options")},
    "immutable": "set(immutable=...) returns a changed copy",
    "id": "set(task_id=...) returns a changed copy",
}


def _refusal(name: str) -> Callable[[Any, object], NoReturn]:
    def refuse(_self: Any, _value: object) -> NoReturn:
        raise AttributeError(
            f"{name!r} of a signature cannot be set: {_REMEDIES.get(name, 'make another signature')}"
        )

    return refuse


class ReadOnly(dict[str, Any]):
    """A dictionary that cannot be changed; copies of it are plain ones. Properties of what derives from it say so, too."""

    __slots__ = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, value in tuple(vars(cls).items()):
            if isinstance(value, property) and value.fset is None:
                setattr(cls, name, value.setter(_refusal(name)))

    def __eq__(self, other: object) -> bool:
        return _is_same(self, other) if isinstance(other, Mapping) else NotImplemented

    # That of dict would not ask __eq__.
    __ne__ = object.__ne__
    __hash__ = None  # as that of dict

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (dict(self),)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "a signature cannot be changed: set(), clone(), replace() and link() return a changed copy"
        )

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


def places(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a signature, or its dictionary, may have others: field and name in it."""
    kind = part.get("subtask_type")
    names = PARTS.get(kind, ()) if isinstance(kind, str) else ()
    return [*(("kwargs", name) for name in names), ("options", "link"), ("options", "link_error")]


def check_ends(part: Mapping[str, Any]) -> None:
    """Refuse what is among its own parts, callbacks or errbacks, however deep.

    Raises:
        ConfigurationError: there is such a thing.
    """
    way: list[tuple[Any, Iterator[Any]]] = [(part, _inside(part))]
    ended: set[int] = set()
    while way:
        item, rest = way[-1]
        inner = next(rest, None)
        if inner is None:
            way.pop()
            ended.add(id(item))
        elif any(inner is each for each, _ in way):
            raise ConfigurationError(
                f"signature {part.get('task')!r:.80} contains itself: give each part a dictionary of its own"
            )
        elif id(inner) not in ended:
            way.append((inner, _inside(inner)))


def _inside(item: Any) -> Iterator[Any]:
    """The dictionaries and lists in a signature, or in a list of them, in which others may be."""
    found: Iterator[Any] = iter(item)
    if isinstance(item, Mapping):
        part: Mapping[str, Any] = item  # pyright: ignore[reportUnknownVariableType] - any fields
        found = (_at(part.get(field), name) for field, name in places(part))
    return (each for each in found if isinstance(each, Mapping | list | tuple))  # pyright: ignore[reportUnknownVariableType] - any items


def _at(fields: Any, name: str) -> Any:
    return fields.get(name) if isinstance(fields, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - any fields
