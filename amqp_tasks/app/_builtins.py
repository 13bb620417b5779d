"""Tasks that every worker has: under Celery's names what `map`, `starmap` and groups in workflows are made of; and errbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._errbacks import CALL_ERRBACK, call_errback
from amqp_tasks.app._execution import awaited
from amqp_tasks.canvas import chunks, signature

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._task import Task

__all__ = ("add_builtins", "is_builtin")

_PREFIX = "celery."


def is_builtin(task_name: str) -> bool:
    """Whether it is a task of ours and none of the app's."""
    return task_name.startswith(_PREFIX) or task_name == CALL_ERRBACK


def add_builtins(app: App) -> None:
    """Register them, but for those whose names are taken; idempotent."""

    def mapped(task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
        call = app.signature(signature(task))
        return [awaited(call(item)) for item in it]

    def starmapped(task: Mapping[str, Any], it: Iterable[Sequence[Any]]) -> list[Any]:
        call = app.signature(signature(task))
        return [awaited(call(*item)) for item in it]

    def chunked(self: Task[..., Any], task: Mapping[str, Any], it: Iterable[Sequence[Any]], n: int) -> Any:
        if self.request.called_directly:
            return [app.signature(part)() for part in chunks(signature(task), it, n).tasks]
        # Where this one is served, as the caller said that of this one only.
        parts = chunks(signature(task), it, n, queue=self.request.delivery_info.get("queue"))
        raise self.replace(parts)

    def called(task: Mapping[str, Any], request: Mapping[str, Any], error: Any, traceback: str | None) -> Any:
        return call_errback(app, task, request, error, traceback)

    builtins: dict[str, Callable[..., Any]] = {
        "celery.map": mapped,
        "celery.starmap": starmapped,
        "celery.accumulate": _accumulate,
        "celery.ping": _ping,
        "celery.backend_cleanup": _backend_cleanup,
        CALL_ERRBACK: called,
    }
    for name, function in builtins.items():
        if name not in app.tasks:
            app.adopt(function, {"name": name, "typing": False})
    if "celery.chunks" not in app.tasks:
        app.adopt(chunked, {"name": "celery.chunks", "typing": False, "bind": True})


def _accumulate(*args: Any, index: int | None = None) -> Any:
    """Its arguments as a list, or one of them."""
    return list(args) if index is None else args[index]


def _ping() -> str:
    return "pong"


def _backend_cleanup() -> None:
    """Nothing: results are messages, which expire in their queues. Celery's beat sends this each night."""
