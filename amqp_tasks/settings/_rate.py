"""Rates as users write them: tasks per second, minute or hour."""

from __future__ import annotations

import math

from amqp_tasks.clock import MAX_SECONDS

__all__ = ("CLUSTER_RATE_FORM", "RATE_FORM", "is_cluster_rate", "per_second")

RATE_FORM = "'10/s', '10/m', '10/h' or a number of tasks per second; 0 for no limit"
CLUSTER_RATE_FORM = "'10/s', '10/m', '10/h' or a number of tasks per second, at most 1000 in a second and at least one in 11 days; 0 for no limit"
_MAX_CLUSTER_RATE = 1000.0
"""Tasks per second: each start costs the broker some four operations."""
_MAX_INTERVAL = 1_000_000.0
"""Seconds that a queue keeps a token, well below the two months that RabbitMQ can."""

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


def is_cluster_rate(rate: float) -> bool:
    """Whether so many tasks per second can be a limit of all nodes together; 0 is none."""
    return rate == 0 or 1 / _MAX_INTERVAL <= rate <= _MAX_CLUSTER_RATE
