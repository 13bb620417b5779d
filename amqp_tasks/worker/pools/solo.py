"""No worker process: tasks run one at a time in the thread that started the worker."""

from amqp_tasks.worker.pool import Capabilities, Layout
from amqp_tasks.worker.pools._caller import CallerPool

__all__ = ("SoloPool",)


class SoloPool(CallerPool):
    """The calling thread. A task that ends the process ends the node."""

    name = "solo"
    capabilities = Capabilities(recycle=False, end_a_task=False)

    @classmethod
    def layout(cls, concurrency: int) -> Layout:
        """No process, one slot."""
        return Layout(processes=0, slots=1)
