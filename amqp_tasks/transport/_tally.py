"""What this process counts of tasks, until the next report of it; see "The counts" in `docs/explanation/account.md`."""

from __future__ import annotations

import threading

from amqp_tasks.clock import Clock
from amqp_tasks.message import COUNTED, ENDS, CountReport, OutgoingMessage, count_message, new_task_id

__all__ = ("Tally",)


class Tally:
    """Counters of one life of a process. Thread safety: any thread."""

    __slots__ = ("_clock", "_counts", "_lock", "_number", "_of", "_told")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Begin anew, as a forked child does: what its parent has counted is its parent's."""
        self._lock = threading.Lock()  # the parent's may have been held by another thread
        self._counts = dict.fromkeys(COUNTED, 0)
        self._of, self._number = new_task_id(), 0
        self._told: dict[str, int] | None = None

    def add(self, kind: str) -> None:
        """Count a task; `kind` is one of `COUNTED`."""
        with self._lock:
            self._counts[kind] += 1

    @property
    def has_ends(self) -> bool:
        """Whether tasks end here: this process is a worker's."""
        return any(self._counts[kind] for kind in ENDS)

    def report(self, *, is_last: bool = False) -> OutgoingMessage | None:
        """What to publish now; None: there is nothing new to tell."""
        with self._lock:
            counts = dict(self._counts)
        if not any(counts.values()) or (counts == self._told and not is_last):
            return None
        self._number, self._told = self._number + 1, counts
        report = CountReport(of=self._of, number=self._number, is_last=is_last, counts=counts)
        return count_message(report, time=self._clock.now().timestamp())

    def repeat(self) -> None:
        """The last report was not stored: the next one is due, whatever was counted since."""
        self._told = None
