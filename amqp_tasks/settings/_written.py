"""What one write gives to `Conf`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

__all__ = ("Written",)


class Written(dict[str, object]):
    """Settings by name, whose values no traceback with locals shows: they may be secrets.

    A value is read more than once, so an iterator is kept as the tuple of its items.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        super().__init__({name: _kept(value) for name, value in settings.items()})

    def __repr__(self) -> str:
        return f"Written({', '.join(self)})"


def _kept(value: object) -> object:
    return tuple(cast("Iterator[object]", value)) if isinstance(value, Iterator) else value
