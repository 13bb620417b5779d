"""Looking at joins by the clock: what is to be done about one that nobody has ended yet. A decision without I/O.

See "The watch" in `docs/explanation/workflows.md` for the states and the rule for each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqp_tasks.message import JoinWatch
    from amqp_tasks.transport import QueueStatus

__all__ = ("next_watch",)

_LONGEST_PAUSE = 86_400.0
_SUSPECT_PAUSE = 5.0
"""Seconds. What a look of somebody else holds, or has just handed back, shows again by then."""
_SUSPECT_FOR = 60.0
"""Seconds. A quorum queue without a leader is counted as empty, and an election may take longer than a look."""


def next_watch(watch: JoinWatch, status: QueueStatus, now: float, timeout: float | None) -> JoinWatch | str:
    """The next look, or why the join is to be given up.

    Args:
        watch: what the look before has found.
        status: of its queue.
        now: seconds since 1970.
        timeout: seconds without a new outcome after which it is given up; None: never.
    """
    pause = min(_LONGEST_PAUSE, watch.pause * 2)
    if status.consumers:
        return watch.after(min(pause, _SUSPECT_PAUSE), is_suspect=False)
    if status.messages < watch.seen:
        if not watch.is_suspect:
            return watch.after(min(pause, _SUSPECT_PAUSE), is_suspect=True)
        if watch.pause * 2 >= min(_SUSPECT_FOR, (timeout or math.inf) / 2):
            return "its queue was emptied, and what had come is lost"
        return watch.after(pause, is_suspect=True)
    since = watch.since if status.messages == watch.seen else now
    if timeout is not None:
        left = since + timeout - now
        if left <= 0:
            return f"nothing new has come for {timeout:g} s"
        pause = min(pause, left)
    return watch.after(max(1.0, pause), seen=status.messages, since=since, is_suspect=False)
