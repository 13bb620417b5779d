"""Tasks that every worker has, under Celery's names: what `map`, `starmap` and groups in workflows are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.canvas import signature

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("add_builtins", "is_builtin")

_PREFIX = "celery."


def is_builtin(task_name: str) -> bool:
    """Whether it is a task of ours and none of the app's."""
    return task_name.startswith(_PREFIX)


def add_builtins(app: App) -> None:
    """Register them, but for those whose names are taken; idempotent."""

    def mapped(task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
        call = app.signature(signature(task))
        return [call(item) for item in it]

    def starmapped(task: Mapping[str, Any], it: Iterable[Sequence[Any]]) -> list[Any]:
        call = app.signature(signature(task))
        return [call(*item) for item in it]

    def accumulate(*args: Any, index: int | None = None, task: Any = None) -> Any:
        # `task` only says where the message goes.
        found: Any = args[0] if len(args) == 1 else args
        values: list[Any] = list(found) if isinstance(found, list) else list(args)  # pyright: ignore[reportUnknownArgumentType]
        return values if index is None else values[index]

    for name, function in (("map", mapped), ("starmap", starmapped), ("accumulate", accumulate)):
        if _PREFIX + name not in app.tasks:
            app.adopt(function, {"name": _PREFIX + name, "typing": False})
