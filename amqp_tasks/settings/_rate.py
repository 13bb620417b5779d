"""Rates as users write them: tasks per second, minute or hour."""

from __future__ import annotations

import math

from amqp_tasks.clock import MAX_SECONDS

__all__ = ("RATE_FORM", "per_second")

RATE_FORM = "'10/s', '10/m', '10/h' or a number of tasks per second; 0 for no limit"

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def per_second(rate: float | str | None) -> float:
    """Tasks per second; 0.0: no limit.

    >>> per_second("30/m")
    0.5

    Args:
        rate: a number, also as text, with `/s`, `/m` or `/h` behind it: per second unless it says otherwise. None and 0: no limit.

    Raises:
        ValueError: it is none of these, negative, or less than one in a century.
    """
    if rate is None:
        return 0.0
    number, slash, unit = rate.partition("/") if isinstance(rate, str) else (rate, "", "")
    if unit not in _SECONDS or (slash and not unit):
        raise ValueError(rate)
    found = float(number) / _SECONDS[unit]
    if not math.isfinite(found) or 0 < found < 1 / MAX_SECONDS or found < 0:
        raise ValueError(rate)
    return found
