"""An exception that both sides of the interop tests import."""

from __future__ import annotations

__all__ = ("OrderRefused",)


class OrderRefused(Exception):
    """Takes two arguments, so that only a call with both rebuilds it."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)
        self.number, self.why = number, why
