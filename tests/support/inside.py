"""A worker of an app in a thread of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp_tasks import App
from amqp_tasks.worker import Worker

__all__ = ("running",)


@contextmanager
def running(
    app: App, *, stop_timeout: float = 5.0, may_fail: bool = False, **options: Any
) -> Iterator[Worker]:
    """A worker that is ready, and is stopped in the end.

    Args:
        app: whose tasks it runs.
        stop_timeout: seconds for the stop.
        may_fail: its exit code may be other than 0.
        options: see `Worker`.
    """
    worker: Worker = app.Worker(**options)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(worker.start()), name="worker-under-test")
    thread.start()
    try:
        assert worker.ready.wait(15)
        yield worker
    finally:
        is_stopped = worker.stop(timeout=stop_timeout)
        thread.join(20)
    assert is_stopped
    assert len(codes) == 1, "start() has not returned"
    assert may_fail or codes == [0]
