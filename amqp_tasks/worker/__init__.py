"""Workers: processes that take tasks from queues, run them and settle them.

`docs/explanation/worker.md` tells what runs where and what happens at each failure.
"""

import sys
from typing import TYPE_CHECKING, Any

from amqp_tasks.worker._platform import check_platform

if TYPE_CHECKING:
    from amqp_tasks.worker._worker import Worker

__all__ = ("Worker",)


def __getattr__(name: str) -> Any:
    """`Worker` when it is asked for: commands that only read need no worker, and run where there can be none.

    Raises:
        ConfigurationError: workers cannot run on this system.
    """
    if name != "Worker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_platform(sys.platform)
    from amqp_tasks.worker._worker import Worker

    globals()[name] = Worker
    return Worker
