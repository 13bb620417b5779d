"""The tasks of an app by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import ConfigurationError, NotRegistered

if TYPE_CHECKING:
    from amqp_tasks.app._task import Task

__all__ = ("TaskRegistry",)


class TaskRegistry(Mapping[str, "Task[..., Any]"]):
    """A read-only mapping of names to tasks; `app.tasks`. Tasks are added by decorating and `app.register_task`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Add a task under its name.

        Raises:
            ConfigurationError: another task has that name.
        """
        known = self._tasks.setdefault(task.name, task)
        if known is not task:
            raise ConfigurationError(
                f"two tasks are named {task.name!r}: {_place(known)} and {_place(task)}; give one of them name=..."
            )

    def __getitem__(self, name: str) -> Task[..., Any]:
        try:
            return self._tasks[name]
        except KeyError:
            near = get_close_matches(name, self._tasks, n=1)
            hint = (
                f", did you mean {near[0]!r}?"
                if near
                else f" ({len(self._tasks)} are): import the module that defines it"
            )
            raise NotRegistered(f"no task {name!r} is registered here{hint}") from None

    def get(self, name: str, default: Any = None) -> Any:
        """The task, or `default`."""
        return self._tasks.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<TaskRegistry: {', '.join(sorted(self._tasks)) or 'empty'}>"


def _place(task: Task[..., Any]) -> str:
    function = task._function or type(task).run
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
