"""Field tables as values: the arguments of a declaration, frozen, hashable and compared as AMQP compares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias, cast

__all__ = ("Table", "TableValue", "table_faults")

TableValue: TypeAlias = Any
"""None, bool, int, float, str, bytes, Decimal, datetime, or lists and dicts of these."""

MAX_SHORT_STRING = 255
_SCALARS = (bool, int, float, str, bytes, Decimal, datetime)


class Table(Mapping[str, TableValue]):
    """An immutable field table.

    Two tables are equal when the broker would see the same values: `True` is not `1`, `1` is not `1.0`.
    """

    __slots__ = ("_items", "_key")

    def __init__(self, items: Mapping[str, TableValue] | Iterable[tuple[str, TableValue]] = ()) -> None:
        self._items: dict[str, TableValue] = {key: _frozen(value) for key, value in dict(items).items()}
        self._key: object = _identity(self._items)

    def __getitem__(self, key: str) -> TableValue:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Table):
            return self._key == other._key
        if isinstance(other, Mapping):
            return self._key == _identity(cast("Mapping[str, TableValue]", other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return repr(self.plain())

    def __reduce__(self) -> tuple[type[Table], tuple[dict[str, TableValue]]]:
        return Table, (self._items,)

    def plain(self) -> dict[str, TableValue]:
        """A copy in dicts and lists, as an AMQP client wants it."""
        return {key: _thawed(value) for key, value in self._items.items()}


def _frozen(value: TableValue) -> TableValue:
    if isinstance(value, Mapping):
        return Table(cast("Mapping[str, TableValue]", value))
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in cast("Iterable[TableValue]", value))
    return value


def _thawed(value: TableValue) -> TableValue:
    if isinstance(value, Table):
        return value.plain()
    if isinstance(value, tuple):
        return [_thawed(item) for item in cast("Iterable[TableValue]", value)]
    return value


def _identity(value: TableValue) -> object:
    """What makes two values the same to the broker: kind and content."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, TableValue]", value).items()
        return frozenset((key, _identity(item)) for key, item in items)
    if isinstance(value, list | tuple):
        return tuple(_identity(item) for item in cast("Iterable[TableValue]", value))
    # By name: what is not a field value (and reported as a fault) may be unhashable.
    kind = next((scalar.__name__ for scalar in _SCALARS if isinstance(value, scalar)), "")
    return (kind, value if kind else repr(value))


def table_faults(arguments: Mapping[str, TableValue], *, path: str = "arguments") -> Iterator[str]:
    """What an AMQP field table cannot hold, a line each."""
    for key, value in arguments.items():
        if not isinstance(cast("object", key), str) or len(key.encode()) > MAX_SHORT_STRING:
            yield f"{path} has the key {key!r}; keys are text of at most {MAX_SHORT_STRING} bytes"
            continue
        yield from _value_faults(value, f"{path}[{key!r}]")


def _value_faults(value: TableValue, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from table_faults(cast("Mapping[str, TableValue]", value), path=path)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Iterable[TableValue]", value)):
            yield from _value_faults(item, f"{path}[{index}]")
    elif value is not None and not isinstance(value, _SCALARS):
        yield f"{path} is of type {type(value).__name__}, which a field table cannot hold; use text or a number"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{path} is {value}, which needs more than 64 bits"
