"""What the nodes of the tests logged as errors, for the report of a failed test."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ("MAX_LINES", "errors_since")

MAX_LINES = 200
# RabbitMQ begins each line with both, those of a crash report too.
_ERROR = re.compile(r"(\S+ \S+) \[(?:error|critical|alert|emergency)\] ")


def errors_since(log: str, moment: datetime) -> list[str]:
    """The lines at level error or worse that are no older than `moment`; the first `MAX_LINES`, and how many more there were.

    Args:
        log: what a node has logged, lines of other forms among it.
        moment: aware, as the times in the log are.
    """
    found = [line for line in log.splitlines() if (head := _ERROR.match(line)) and _time(head[1]) >= moment]
    left_out = len(found) - MAX_LINES
    return found[:MAX_LINES] + ([f"... and {left_out} lines more"] if left_out > 0 else [])


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)
