"""An app of stock Celery, for its own worker and its own client."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from stock import tasks

app: Any = Celery("stock", broker=os.environ["AMQP_TASKS_BROKER_URL"], backend="rpc://")
# Only what agrees with the other side; everything else is as it comes from PyPI.
app.conf.update(
    accept_content=["json", "msgpack"],
    broker_connection_retry_on_startup=True,
    task_protocol=int(os.environ.get("STOCK_TASK_PROTOCOL", "2")),
)

app.task(tasks.echo, name="echo")
app.task(tasks.refuse, name="refuse")
app.task(tasks.hold, name="hold")


@app.task(name="describe", bind=True)  # type: ignore[untyped-decorator,unused-ignore]  # Celery has no types
def describe(self: Any, *args: Any) -> dict[str, Any]:
    """What the task sees of its call."""
    return tasks.described(self.request)


@app.task(name="insist", bind=True)  # type: ignore[untyped-decorator,unused-ignore]
def insist(self: Any, times: int, limit: int = 9) -> int:
    """Retried again and again."""
    return tasks.insist(self, times, limit)


@app.task(name="only_the_client_knows_it")  # type: ignore[untyped-decorator,unused-ignore]
def only_the_client_knows_it() -> None:
    """Registered on the stock side only."""


@app.task(name="step")  # type: ignore[untyped-decorator,unused-ignore]
def step(before: Any, name: str = "step") -> list[Any]:
    """A step of a workflow."""
    return tasks.trail("stock", before, name)


@app.task(name="told")  # type: ignore[untyped-decorator,unused-ignore]
def told(task_id: str) -> None:
    """An errback that gets the id."""
    tasks.note("told by stock", task_id)


@app.task(name="explained")  # type: ignore[untyped-decorator,unused-ignore]
def explained(request: Any, error: Exception, traceback: Any) -> None:
    """An errback that gets the exception."""
    tasks.note("explained by stock", f"{request.id}: {error!r}")


@app.task(name="stamps", bind=True)  # type: ignore[untyped-decorator,unused-ignore]
def stamps(self: Any, *before: Any) -> list[Any]:
    """Which system ran it, and what it is stamped with; after those before."""
    return tasks.stamped("stock", self.request, before)
