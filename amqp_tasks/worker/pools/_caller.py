"""One slot: the thread that calls `serve`."""

from __future__ import annotations

from queue import SimpleQueue

from amqp_tasks.worker.pool import Pool, Runnable

__all__ = ("CallerPool",)


class CallerPool(Pool):
    """Runs jobs one after the other in the thread that entered `serve`."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._jobs: SimpleQueue[Runnable | None] = SimpleQueue()
        self._is_stopped = False

    def start(self) -> None:
        """See `Pool.start`."""

    def serve(self) -> None:
        """See `Pool.serve`."""
        get = self._jobs.get
        # Without a limit on purpose: `stop` always puts the end mark.
        while (job := get()) is not None:
            self._run(job, 0)
            # Else the last job and its message would live on until the next one comes.
            del job

    def submit(self, job: Runnable) -> None:
        """See `Pool.submit`."""
        if self._is_stopped:
            raise RuntimeError("the pool is stopped")
        self._jobs.put(job)

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._is_stopped = True
        self._jobs.put(None)
