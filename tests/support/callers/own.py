"""amqp-tasks as it comes. Its workers run `support.worker_app`."""

from __future__ import annotations

import os
import sys
from typing import Any

from amqp_tasks.errors import NotSent
from support.callers.calling import call_until_told
from support.worker_client import WorkerClient


class OwnCaller:
    """Calls `act`."""

    def __init__(self, client: WorkerClient) -> None:
        self.client = client

    def send(self, key: str, action: str, argument: Any, *, wants_result: bool) -> Any:
        """See `Caller`."""
        return self.client.act(key, action, argument, ignore_result=not wants_result)

    def is_certainly_not_stored(self, error: Exception) -> bool:
        """See `Caller`."""
        return isinstance(error, NotSent)

    def value(self, handle: Any, timeout: float) -> Any:
        """See `Caller`."""
        return handle.get(timeout=timeout)


if __name__ == "__main__":
    call_until_told(OwnCaller(WorkerClient(os.environ["AMQP_TASKS_BROKER_URL"])), sys.argv)
