"""Workflows on the embedded broker, so that users' tests see what RabbitMQ would give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amqp_routing import Topology
from amqp_tasks import App, Request, chain, chord, group
from amqp_tasks.errors import BrokerUnreachable, ChordError
from support import eventually
from support.apps import add_workflow_tasks
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    """An app with a worker in a thread."""
    with App("embedded", broker="memory://workflows/") as made:
        add_workflow_tasks(made)
        with running(made, pool="threads", concurrency=2):
            yield made


def test_workflows_give_what_they_give_on_rabbitmq(app: App) -> None:
    add, total, fail = (app.tasks[name] for name in ("add", "total", "fail"))

    assert chain(add.s(1, 1), add.s(2))().get(timeout=10) == 4
    assert group(add.s(n, n) for n in range(5))().get(timeout=10) == [0, 2, 4, 6, 8]
    assert chord([add.s(n, n) for n in range(5)], total.s())().get(timeout=10) == 20
    assert chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(1))().get(timeout=10) == 8
    with pytest.raises(ChordError):
        chord([add.s(1, 1), fail.s()], total.s())().get(timeout=10)


class Argument(int):
    """Counts how many of its kind there are."""

    alive = most = 0

    def __init__(self, value: int) -> None:
        Argument.alive += 1
        Argument.most = max(Argument.most, Argument.alive)

    def __del__(self) -> None:
        Argument.alive -= 1


def test_the_members_of_a_generator_are_never_in_memory_together(app: App) -> None:
    add = app.tasks["add"]

    results = group(add.s(Argument(1), 1) for _ in range(5000))()

    assert sum(results.get(timeout=60)) == 10_000
    assert Argument.most < 50


def test_an_errback_is_called_once_however_often_the_broker_is_asked_for_what_another_needs(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    absences = [BrokerUnreachable("away", url="memory://")]
    ensure = app.transport.ensure_topology

    @app.task(name="explain")
    def explain(request: Any, error: Any, traceback: str) -> None:
        called.append(f"{request.id} {error}")

    def away_at_first(topology: Topology, **options: Any) -> None:
        if topology.queue("noted") is not None and absences:
            raise absences.pop()
        ensure(topology, **options)

    monkeypatch.setattr(app.transport, "ensure_topology", away_at_first)
    errbacks = [explain.s(), app.signature("note").set(queue="noted")]
    failed = app.tasks["fail"].apply_async(link_error=errbacks)

    with pytest.raises(ValueError):
        failed.get(timeout=10)
    status = app.transport.queue_status("noted")
    assert status is not None
    assert (called, absences, status.messages) == ([f"{failed.id} no"], [], 1)


def test_an_errback_may_say_of_which_types_its_arguments_are(app: App) -> None:
    called: list[tuple[Request, Exception, str | None]] = []

    @app.task
    def explain(request: Request, error: Exception, traceback: str | None) -> None:
        called.append((request, error, traceback))

    failed = app.tasks["fail"].apply_async(link_error=explain.s())

    with pytest.raises(ValueError):
        failed.get(timeout=10)
    eventually(lambda: len(called) == 1)
    ((request, error, traceback),) = called
    assert (request.id, str(error)) == (failed.id, "no")
    assert "ValueError" in (traceback or "")
