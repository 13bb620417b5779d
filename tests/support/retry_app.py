"""The app of the retry tests: tasks that are run again, reporting each run to the ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from amqp_tasks import App, RetryPlan, Steps, Task
from amqp_tasks.errors import Snooze
from support.ledger import Ledger

QUEUE = "work"

app = App("retry_app", task_default_queue=QUEUE)


def _note(event: str, key: str) -> None:
    Ledger(Path(os.environ["AMQP_TASKS_TEST_LEDGER"])).record(event, key)


@app.task(name="again", bind=True, max_retries=None)
def again(self: Task[..., Any], times: int, countdown: float = 0) -> dict[str, Any]:
    """Retry so often; returns what the last run was told."""
    request = self.request
    _note(f"run {request.retries}", request.id or "")
    if request.retries < times:
        raise self.retry(exc=ValueError(f"run {request.retries}"), countdown=countdown)
    return {
        "retries": request.retries,
        "id": request.id,
        "root_id": request.root_id,
        "tenant": request.headers.get("x-tenant"),
        "headers": sorted(request.headers),
        "priority": request.delivery_info.get("priority"),
        "queue": request.delivery_info.get("queue"),
        "time": time.time(),
    }


@app.task(name="planned", bind=True, retry_plan=RetryPlan(fast=2, then=Steps(1.0, 0.1)))
def planned(self: Task[..., Any], times: int) -> float:
    """Fail so often; returns the time of the last run."""
    _note(f"run {self.request.retries}", self.request.id or "")
    if self.request.retries < times:
        raise ValueError(f"run {self.request.retries}")
    return time.time()


@app.task(name="die_between", bind=True)
def die_between(self: Task[..., Any], marker: str) -> int:
    """Retry, and have the process die when the next message is confirmed, before the ack."""
    _note(f"run {self.request.retries}", self.request.id or "")
    if self.request.retries:
        return self.request.retries
    if not Path(marker).exists():
        Path(marker).touch()
        _die_at_the_next_confirm()
    raise self.retry(countdown=0)


def _die_at_the_next_confirm() -> None:
    from amqp_tasks.worker._settler import Settler

    def die(*args: Any) -> None:
        os._exit(9)

    setattr(Settler, "_was_set_aside", die)  # noqa: B010 - of another type: it does not return


@app.task(name="snooze", bind=True)
def snooze(self: Task[..., Any], seconds: float, since: float) -> float:
    """Snooze once; returns the seconds since `since`."""
    if time.time() - since < seconds:
        raise Snooze(seconds)
    return time.time() - since
