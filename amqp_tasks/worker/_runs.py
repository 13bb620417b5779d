"""Which jobs run in this process, and who answers for each: its slot, or the control thread that ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqp_tasks.message import Envelope
    from amqp_tasks.worker._job import Job

__all__ = ("Runs",)


class Runs:
    """Life of a run: `begin` by its slot; `take` by whoever is first, slot or control thread, and who gets True answers for it.

    Thread safety: any thread. The interpreter adds, removes and copies keys of a dictionary in one step each.
    """

    def __init__(self) -> None:
        self._running: dict[Job, None] = {}
        self.abandoned = threading.Event()
        """A slot has come to the end of a run that the control thread answered for."""

    def begin(self, job: Job) -> None:
        """Make a run known, before its slot asks whether it may start."""
        self._running[job] = None

    def take(self, job: Job) -> bool:
        """Answer for a run from here on; False when somebody else does."""
        return self._running.pop(job, self) is not self

    def find(self, is_meant: Callable[[Envelope], bool]) -> list[Job]:
        """The running jobs that are meant."""
        return [job for job in tuple(self._running) if job.envelope is not None and is_meant(job.envelope)]
