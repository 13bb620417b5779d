"""Which errbacks are called in place and which are sent, by workers and by callers, and that none stops another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, Task
from support import eventually
from support.apps import add_workflow_tasks
from support.inside import running

told: list[tuple[Any, ...]] = []


@pytest.fixture
def app() -> Iterator[App]:
    """An app with errbacks, and a worker in a thread."""
    told.clear()
    with App("errbacks", broker="memory://errbacks/", task_default_queue="work") as made:
        add_workflow_tasks(made)

        @made.task(name="bound", bind=True)
        def bound(self: Task[..., Any], task_id: str, tag: str = "") -> None:
            told.append(("bound", task_id))

        class Written(Task[..., Any]):
            name = "written"

            def run(self, task_id: str, tag: str = "") -> None:
                told.append(("written", task_id))

        made.register_task(Written())
        with running(made, pool="threads", concurrency=1):
            yield made


def _are(found: Any, expected: Any) -> None:
    assert found == expected


def _failed(app: App, errbacks: Any, *, is_eager: bool = False) -> str:
    """The id of a task that has failed, with these errbacks."""
    fail = app.tasks["fail"]
    call = fail.apply if is_eager else fail.apply_async
    return call(link_error=errbacks).id  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize("name", ["bound", "written"])
def test_an_errback_that_gets_the_task_itself_is_a_task_of_its_own_with_the_id(
    app: App, name: str, is_eager: bool
) -> None:
    task_id = _failed(app, app.tasks[name].s(), is_eager=is_eager)

    eventually(lambda: _are(told, [(name, task_id)]))
