"""Workflows on the embedded broker, so that users' tests see what RabbitMQ would give."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, chain, chord, group
from amqp_tasks.errors import ChordError


@pytest.fixture
def app() -> Iterator[App]:
    """An app with a worker in a thread."""
    with App("embedded", broker="memory://workflows/") as made:

        @made.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @made.task(name="total")
        def total(values: list[int]) -> int:
            return sum(values)

        @made.task(name="fail")
        def fail(*args: Any) -> None:
            raise ValueError("no")

        worker = made.Worker(pool="threads", concurrency=2)
        thread = threading.Thread(target=worker.start, name="embedded-worker")
        thread.start()
        try:
            assert worker.ready.wait(10)
            yield made
        finally:
            worker.stop(timeout=5)
            thread.join(10)


def test_workflows_give_what_they_give_on_rabbitmq(app: App) -> None:
    add, total, fail = (app.tasks[name] for name in ("add", "total", "fail"))

    assert chain(add.s(1, 1), add.s(2))().get(timeout=10) == 4
    assert group(add.s(n, n) for n in range(5))().get(timeout=10) == [0, 2, 4, 6, 8]
    assert chord([add.s(n, n) for n in range(5)], total.s())().get(timeout=10) == 20
    assert chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(1))().get(timeout=10) == 8
    with pytest.raises(ChordError):
        chord([add.s(1, 1), fail.s()], total.s())().get(timeout=10)
