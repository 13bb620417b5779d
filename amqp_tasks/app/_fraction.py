"""How far something has got, as a number: what is told may be any."""

from __future__ import annotations

import math
from typing import Any

__all__ = ("fraction_of", "is_finite")


def fraction_of(done: float, total: float | None) -> float | None:
    """From 0 to 1, for any finite numbers; None when the total is not known, or 0."""
    return None if not total else max(0.0, min(1.0, done / total))


def is_finite(number: Any) -> bool:
    """Whether it is a number, and not NaN, infinite, or whole and greater than any float."""
    try:
        return math.isfinite(number)
    except (OverflowError, TypeError):
        return False
