"""Apps on the test's virtual host, and a small worker: what is tested here is the calling side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqp_tasks.app import App
from support.plain_worker import PlainWorker
from support.vhosts import Vhost


@pytest.fixture
def make_app(vhost: Vhost) -> Iterator[Callable[..., App]]:
    """Apps on the test's virtual host, closed after it."""
    made: list[App] = []

    def make(**settings: Any) -> App:
        app = App("proj", **{"broker": vhost.url, **settings})
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.fixture
def run_worker(vhost: Vhost) -> Iterator[Callable[..., PlainWorker]]:
    """Start a `PlainWorker` for an app's tasks."""
    running: list[PlainWorker] = []

    def run(app: App, *queue_names: str) -> PlainWorker:
        worker = PlainWorker(app, vhost.url, *queue_names)
        running.append(worker)
        return worker.start()

    yield run
    for worker in running:
        worker.stop()
