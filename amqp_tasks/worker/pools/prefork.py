"""N processes with one slot each: the main thread, which limits and debuggers can interrupt."""

from amqp_tasks.worker.pool import Capabilities, Layout
from amqp_tasks.worker.pools._caller import CallerPool

__all__ = ("PreforkPool",)


class PreforkPool(CallerPool):
    """The slot of one of N worker processes."""

    name = "prefork"
    capabilities = Capabilities(recycle=True, end_a_task=True)

    @classmethod
    def layout(cls, concurrency: int) -> Layout:
        """One process per task."""
        return Layout(processes=concurrency, slots=1)
