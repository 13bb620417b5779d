"""What tests of apps share: the shapes of their fixtures, and tasks that are small enough to be read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqp_tasks.app import App
from support.plain_worker import PlainWorker

__all__ = ("MakeApp", "RunWorker", "Unforeseen", "add_workflow_tasks", "echo", "fail")

MakeApp = Callable[..., App]
RunWorker = Callable[..., PlainWorker]


class Unforeseen(Exception):
    """One that no app allows by itself."""


def echo(value: Any) -> Any:
    """What it was given."""
    return value


def fail(kind: str) -> None:
    """Raise an exception of Python, `key`, or of the application, `own`."""
    raise {"key": KeyError("k"), "own": Unforeseen("u", 7)}[kind]


def add_workflow_tasks(app: App) -> None:
    """Give an app the tasks `add`, `total` and `fail`, enough for any shape of workflow."""

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task(name="fail")
    def fail(*args: Any) -> None:
        raise ValueError("no")
