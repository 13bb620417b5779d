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
