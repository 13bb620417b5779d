"""Workers: processes that take tasks from queues, run them and settle them.

`docs/explanation/worker.md` tells what runs where and what happens at each failure.
"""

from amqp_tasks.worker._worker import Worker

__all__ = ("Worker",)
