"""The pages on apps, tasks and results: their code runs, and they name all there is."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amqp_tasks import App, AsyncResult, ResultSet
from amqp_tasks.app import CallOptions, TaskOptions
from amqp_tasks.app._request import Request
from amqp_tasks.errors import TaskRevokedError
from support.eventually import wait_until
from support.inside import running

DOCS = Path(__file__).parents[3] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def code(page: str) -> list[str]:
    return FENCE.findall((DOCS / page).read_text())


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The module `proj` of the page "Define tasks", on the embedded broker, with a worker in a thread."""
    module = ModuleType("proj")
    monkeypatch.setitem(sys.modules, "proj", module)
    (text,) = code("how-to/define-tasks.md")
    exec(
        compile(text.replace("amqp://localhost//", "memory://docs/"), "define-tasks.md", "exec"), vars(module)
    )
    app: App = vars(module)["app"]
    app.conf.task_routes = {"mail.send": {"queue": "mails"}}
    with app, running(app, pool="threads", concurrency=2, queues=["default", "mails", "hipri"]):
        yield vars(module)


def test_the_code_of_the_pages_runs(project: dict[str, Any]) -> None:
    one_call, later, many_calls, taken_back, asking = code("how-to/call-tasks.md")

    exec(compile(one_call, "call-tasks.md", "exec"), project)
    assert project["value"] == 3

    exec(compile(later, "call-tasks.md", "exec"), project)
    assert project["reminder"].get(10) == 42

    exec(compile(many_calls.replace("100_000", "100"), "call-tasks.md", "exec"), project)
    assert project["results"].get(10) == [2 * i for i in range(100)]
    assert project["first"].get(10) == 3

    exec(compile(taken_back.replace("600", "0.5"), "call-tasks.md", "exec"), project)
    with pytest.raises(TaskRevokedError):
        project["unwanted"].get(10)

    has_begun = threading.Event()
    exec(compile(asking, "call-tasks.md", "exec"), project)

    def work_on(chunk: str) -> None:
        has_begun.set()
        wait_until(project["crunch"].cancelled, within=10)

    project["work_on"] = work_on
    asked = project["crunch"].delay(["first", "second"])
    assert has_begun.wait(10)
    asked.revoke()
    with pytest.raises(TaskRevokedError, match="stopped between two chunks"):
        asked.get(10)


def public(kind: type) -> set[str]:
    # What is only Celery's raises.
    return {name for name in vars(kind) if not name.startswith("_") and hasattr(kind, name)}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("how-to/call-tasks.md", set(CallOptions.__annotations__)),
        ("reference/tasks.md", set(TaskOptions.__annotations__) | set(Request.__annotations__)),
        ("reference/results.md", public(AsyncResult) - {"app"}),
        ("reference/results.md", public(ResultSet)),
        ("reference/app.md", public(App) - {"adopt", "binding_of", "calls", "resources", "timezone"}),
    ],
    ids=["call options", "task options", "results", "result sets", "app"],
)
def test_a_page_names_all_there_is(page: str, names: set[str]) -> None:
    text = FENCE.sub("", (DOCS / page).read_text())
    said = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))

    assert names - said == set()
