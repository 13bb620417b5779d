"""Workers: processes that take tasks from queues, run them and settle them.

`docs/explanation/worker.md` tells what runs where and what happens at each failure.
"""

import sys

from amqp_tasks.errors import ConfigurationError

if sys.platform == "win32":
    # Before anything of it is imported: what it is made of is not there.
    raise ConfigurationError(
        "workers cannot run on Windows, where processes cannot be forked: run them on Linux or macOS, in WSL or in a"
        " container; tasks can be called from here"
    )

from amqp_tasks.worker._worker import Worker

__all__ = ("Worker",)
