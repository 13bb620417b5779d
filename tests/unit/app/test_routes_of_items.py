"""`map`, `starmap` and `chunks` go where calls of their task go (S121, S122, S123)."""

from __future__ import annotations

import time

import pytest

from amqp_tasks import App


@pytest.mark.parametrize("routes", [{}, {"add": {"queue": "routed"}}])
@pytest.mark.parametrize("kind", ["map", "starmap"])
def test_one_message_for_many_items_goes_to_the_queue_of_their_task(
    routes: dict[str, dict[str, str]], kind: str
) -> None:
    app = App("items", broker_url="memory://", task_routes=routes)

    @app.task(name="add", queue=None if routes else "routed")
    def add(x: int, y: int = 0) -> int:
        return x + y

    try:
        call = getattr(add, kind)([(1, 2)])
        task = app.calls.named(call.task)
        prepared = app.calls.prepare(task, (), call.kwargs, deadline=time.monotonic() + 5)
        assert prepared.message.routing_key == "routed"
    finally:
        app.resources.close(timeout=5.0)
