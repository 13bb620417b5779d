"""What takes the place of a task has its id, and is another run all the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqp_tasks import App, Task, chain, chord
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from support.inside import running

Part = Callable[[Any], Any]


@pytest.fixture
def app() -> Iterator[App]:
    with App("replacing", broker=f"memory://{uuid.uuid4().hex}/", backend="rpc://") as made:
        yield made


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of all runs, in order."""
    found: list[str] = []
    opened = Ledger.open

    def note(ledger: Ledger, job: Job) -> None:
        found.append(job.key)
        opened(ledger, job)

    monkeypatch.setattr(Ledger, "open", note)
    return found


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda one: one, id="task"),
        pytest.param(lambda one: chain(one, one), id="chain"),
        pytest.param(lambda one: chord([one], one), id="chord"),
        pytest.param(lambda one: chord([one], chain(one, one)), id="chord with a chain as body"),
        pytest.param(lambda one: one | chord([one, one], one), id="chain that ends with a chord"),
    ],
)
def test_what_replaces_a_task_is_told_apart_from_it(app: App, keys: list[str], made: Part) -> None:
    @app.task(bind=True)
    def replaced(self: Task[..., Any], times: int) -> None:
        raise self.replace(replaced.si(times - 1) if times else made(one.si()))

    @app.task
    def one() -> int:
        return 1

    with running(app):
        assert replaced.apply_async((1,), task_id="it").get(timeout=10) == 1

    of_it = [key for key in keys if key.split()[0] == "it"]
    assert len(of_it) == len(set(of_it)) == 3
