"""M threads in one process, for tasks that wait for others (I/O)."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from amqp_tasks.worker.pool import Capabilities, Layout, Pool, Runnable

__all__ = ("ThreadsPool",)


class ThreadsPool(Pool):
    """Slots are threads; the thread in `serve` only waits for their end."""

    name = "threads"
    capabilities = Capabilities(recycle=True, end_a_task=False)

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._jobs: SimpleQueue[Runnable | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()

    @classmethod
    def layout(cls, concurrency: int) -> Layout:
        """One process with a thread per task."""
        return Layout(processes=1, slots=concurrency)

    def start(self) -> None:
        """See `Pool.start`."""
        for slot in range(self.slots):
            # Daemons: a task that never ends must not keep a process whose deadline has passed.
            thread = threading.Thread(
                target=self._work, args=(slot,), name=f"amqp-tasks-slot-{slot}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def serve(self) -> None:
        """See `Pool.serve`."""
        self._stopped.wait()
        for thread in self._threads:
            thread.join()

    def submit(self, job: Runnable) -> None:
        """See `Pool.submit`."""
        if self._stopped.is_set():
            raise RuntimeError("the pool is stopped")
        self._jobs.put(job)

    def stop(self) -> None:
        """See `Pool.stop`."""
        if not self._stopped.is_set():
            self._stopped.set()
            for _ in range(self.slots):
                self._jobs.put(None)

    def _work(self, slot: int) -> None:
        while (job := self._jobs.get()) is not None:
            self._run(job, slot)
            del job
