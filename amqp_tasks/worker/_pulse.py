"""Telling a process that hangs from one that works in C code, which holds the interpreter as well.

See `docs/explanation/worker.md`, "When a worker process hangs".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ("Pulse", "processor_seconds")

_WORK = 0.05
"""The part of a processor above which a process works. Not all of it is work: threads that wait for the interpreter look for it
200 times a second."""


class Pulse:
    """What one process showed at each look of its supervisor, whose loop alone uses it. Time is counted in looks: a supervisor, or
    a whole machine, that stood still has missed no signs.

    Args:
        used: processor seconds that the process has used so far; None: the system does not tell.
    """

    def __init__(self, used: Callable[[], float | None]) -> None:
        self._used = used
        self._sign, self._silent_looks = 0.0, 0
        self._used_before: float | None = None

    def look(self, sign: float) -> None:
        """Note the last sign of life; 0: it gives none, and need not."""
        if not sign or sign != self._sign:
            self._sign, self._silent_looks = sign, 0
            return
        if not self._silent_looks:
            self._used_before = self._used()
        self._silent_looks += 1

    def is_hung(self, looks: int, period: float) -> bool | None:
        """Whether it gave no sign at so many looks, one every `period` seconds, and did not work meanwhile; None: whether it did
        cannot be known. Either way the looks are counted anew."""
        if self._silent_looks < looks:
            return False
        before, used, self._silent_looks = self._used_before, self._used(), 0
        if before is None or used is None:
            return None
        return used - before <= _WORK * looks * period


def processor_seconds(pid: int) -> float | None:
    """What a process has used of the processor, by /proc; None where that does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name in front may hold anything, spaces and brackets too.
        user, system = fields.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
