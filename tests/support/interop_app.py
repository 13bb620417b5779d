"""Our apps for the interop tests: the stock names, and a queue as stock Celery declares it."""

from __future__ import annotations

from typing import Any

from amqp_tasks import App, Task
from stock import tasks

SETTINGS: dict[str, Any] = {
    "task_default_queue": "celery",
    "task_default_queue_type": "classic",
    "task_dead_letter_queues": False,
    "accept_content": ("json", "msgpack"),
}
KEEPING = SETTINGS | {"task_dead_letter_queues": True, "topology": "none"}


def _with_tasks(settings: dict[str, Any]) -> App:
    made = App("ours", **settings)
    made.task(name="echo")(tasks.echo)
    made.task(name="refuse")(tasks.refuse)
    made.task(name="hold")(tasks.hold)

    @made.task(name="describe", bind=True)
    def describe(self: Task[..., Any], *args: Any) -> dict[str, Any]:
        return tasks.described(self.request)

    @made.task(name="insist", bind=True)
    def insist(self: Task[..., Any], times: int, limit: int = 9) -> int:
        return tasks.insist(self, times, limit)

    @made.task(name="step")
    def step(before: Any, name: str = "step") -> list[Any]:
        return tasks.trail("ours", before, name)

    @made.task(name="stamps", bind=True)
    def stamps(self: Task[..., Any], *before: Any) -> list[Any]:
        return tasks.stamped("ours", self.request, before)

    @made.task(name="told")
    def told(task_id: str) -> None:
        tasks.note("told by ours", task_id)

    @made.task(name="explained")
    def explained(request: Any, error: Exception, traceback: Any) -> None:
        tasks.note("explained by ours", f"{request.id}: {error!r}")

    return made


app = _with_tasks(SETTINGS)
keeping = _with_tasks(KEEPING)
"""Declares nothing, so that its dead letters need no argument on the queue."""
