"""Reading header tables by their shape.

The messages of one task type and sender differ in a few items (ids, arguments, the place in a group); everything else in their
header tables is equal to the byte, in the order into which RabbitMQ sorts it. Two messages teach which items vary; from then
on the constant runs are compared instead of decoded, which is most of the work of reading a message.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

__all__ = ("ReadItem", "TableShapes")

ReadItem = Callable[[dict[str, Any], bytes, int, int, int], int]
"""Decodes one item into a table: (table, data, offset, end, depth) to the offset behind it."""

_STRING = ord("S")
_read_u32 = Struct(">I").unpack_from


class _Step:
    """A constant run of items, or (with a `key`) one text that varies, or (with `read`) one item that does; `marker` is what
    the bytes begin with."""

    __slots__ = ("containers", "items", "key", "marker", "read")

    def __init__(
        self, marker: bytes, items: dict[str, Any], key: str | None = None, read: ReadItem | None = None
    ) -> None:
        self.marker, self.items, self.key, self.read = marker, items, key, read
        self.containers = tuple(name for name, value in items.items() if isinstance(value, (list, dict)))

    def has_nested(self) -> bool:
        """Whether a copy of its containers would not be deep enough."""
        return any(
            isinstance(inner, (list, dict))
            for name in self.containers
            for inner in (
                self.items[name].values() if isinstance(self.items[name], dict) else self.items[name]
            )
        )


_Item = tuple[str, bytes]
_Shape = tuple[_Step, ...]


class TableShapes:
    """The shapes seen lately, newest first. Thread safety: any thread; a race only learns twice.

    Args:
        read_item: the decoder of single items.
    """

    MAX_KNOWN = 8
    MAX_BYTES = 8192
    """Larger tables are read plainly and not learnt from: a hostile sender's tens of thousands of items must cost one reading only."""
    ALWAYS_LEARN = 64
    """Tables of unknown shape after which only every power of two is learnt from: senders that are all different
    must not make each message dearer."""

    def __init__(self, read_item: ReadItem) -> None:
        self._read_item = read_item
        self._known: tuple[_Shape, ...] = ()
        self._last = b""
        self._misses = 0

    def read(self, data: bytes) -> dict[str, Any]:
        """Decode a table's items.

        Raises:
            IndexError, ValueError, struct.error: the table is cut off or has unknown field types.
        """
        for shape in self._known if len(data) <= self.MAX_BYTES else ():
            known = _read_by(shape, data)
            if known is not None:
                return known
        table: dict[str, Any] = {}
        offset, end = 0, len(data)
        while offset < end:
            offset = self._read_item(table, data, offset, end, 0)
        self._learn(data)
        return table

    def _learn(self, data: bytes) -> None:
        if len(data) > self.MAX_BYTES:
            return
        last, self._last = self._last, data
        self._misses += 1
        if self._misses > self.ALWAYS_LEARN and self._misses & (self._misses - 1):
            return
        if not last or data == last:
            return
        steps = self._compare(self._split(last), self._split(data))
        if steps and not any(step.has_nested() for step in steps):
            self._known = (steps, *self._known[: self.MAX_KNOWN - 1])

    def _split(self, data: bytes) -> list[_Item]:
        items: list[_Item] = []
        offset = 0
        while offset < len(data):
            start, table = offset, dict[str, Any]()
            offset = self._read_item(table, data, offset, len(data), 0)
            items.append((next(iter(table)), data[start:offset]))
        return items

    def _compare(self, before: list[_Item], after: list[_Item]) -> _Shape:
        """The steps of two tables with the same names; else none."""
        if [name for name, _ in before] != [name for name, _ in after]:
            return ()
        steps: list[_Step] = []
        run = b""
        for (name, old), (_, new) in zip(before, after, strict=True):
            if old == new:
                run += new
                continue
            if run:
                steps.append(self._constant(run))
            steps.append(self._varying(name, old, new))
            run = b""
        if run:
            steps.append(self._constant(run))
        return tuple(steps)

    def _varying(self, name: str, old: bytes, new: bytes) -> _Step:
        marker = new[: 2 + new[0]]
        if marker[-1] == _STRING and old.startswith(marker):
            return _Step(marker, {}, name)
        return _Step(marker[:-1], {}, name, self._read_item)

    def _constant(self, run: bytes) -> _Step:
        items: dict[str, Any] = {}
        offset = 0
        while offset < len(run):
            offset = self._read_item(items, run, offset, len(run), 0)
        return _Step(run, items)


def _read_by(shape: _Shape, data: bytes) -> dict[str, Any] | None:
    """The table if `data` has that shape, else None."""
    table: dict[str, Any] = {}
    offset = 0
    for step in shape:
        marker = step.marker
        if not data.startswith(marker, offset):
            return None
        if step.read is not None:
            offset = step.read(table, data, offset, len(data), 0)
            continue
        offset += len(marker)
        if step.key is None:
            table.update(step.items)
            for name in step.containers:
                table[name] = table[name].copy()  # two messages must not share what a task could change
            continue
        size: int = _read_u32(data, offset)[0]
        start, offset = offset + 4, offset + 4 + size
        try:
            table[step.key] = data[start:offset].decode()
        except UnicodeDecodeError:
            table[step.key] = data[start:offset]
    return table if offset == len(data) else None
