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


@pytest.mark.parametrize("kind", ["map", "starmap", "chunks"])
@pytest.mark.parametrize("is_sensitive", [True, False])
def test_one_message_for_many_items_shows_none_that_its_task_hides(kind: str, is_sensitive: bool) -> None:
    app = App("items", broker_url="memory://")

    @app.task(name="login", sensitive=("password",) if is_sensitive else ())
    def login(user: str, password: str) -> None: ...

    try:
        if kind == "chunks":
            (call,) = login.chunks([("bob", "canary")], 1).tasks
        else:
            call = getattr(login, kind)([("bob", "canary")])
        task = app.calls.named(call.task)
        prepared = app.calls.prepare(task, (), call.kwargs, deadline=time.monotonic() + 5)
        headers = prepared.message.properties.all_headers()
    finally:
        app.resources.close(timeout=5.0)
    assert ("canary" in str(headers)) != is_sensitive
    assert (headers["kwargsrepr"] == "{'task': 'login', 'it': ***}") == is_sensitive
