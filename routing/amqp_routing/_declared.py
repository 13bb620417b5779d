"""What is equal when the broker would see the same declaration."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ("Declared",)


class Declared(ABC):
    """A value that is compared, and hashed, by what is declared of it."""

    __slots__ = ()

    @abstractmethod
    def _declaration(self) -> tuple[object, ...]:
        """What the broker would see; hashable."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._declaration() == other._declaration()

    def __hash__(self) -> int:
        return hash(self._declaration())
