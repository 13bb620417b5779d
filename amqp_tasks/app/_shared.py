"""`shared_task`: tasks of reusable packages, which do not know the app they will run in.

Each app gets a task of its own from the shared declaration, when it is finalized. The object that the decorator
returns forwards to the current app's; see `current_app` for which that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from amqp_tasks.app._current import current_app, living_apps
from amqp_tasks.app._options import TaskOptions
from amqp_tasks.app._task import Task

__all__ = ("SharedTask", "declared", "shared_task")

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_declared: list[tuple[Callable[..., Any], dict[str, Any]]] = []


def declared() -> Sequence[tuple[Callable[..., Any], Mapping[str, Any]]]:
    """Every shared function of this process with its options, in the order of declaration."""
    return tuple(_declared)


class SharedTask(Task[P, R_co]):
    """What `shared_task` returns: every use is passed on to the current app's own task of that declaration."""

    def __init__(self, function: Callable[P, R_co], options: Mapping[str, Any]) -> None:
        self._function = function
        self._shared_name: str | None = options.get("name")
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "twin":
            return super().__getattribute__(name)
        return getattr(self.twin, name)

    @property
    def twin(self) -> Task[P, R_co]:
        """The current app's own task.

        Raises:
            ConfigurationError: there is no app.
        """
        app = current_app()
        assert self._function is not None
        name = self._shared_name
        if name is None:
            name = app.gen_task_name(self._function.__name__, self._function.__module__)
        # The registry knows tasks by name; that this one has our signature is what sharing means.
        return cast("Task[P, R_co]", app.tasks[name])

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """See `Task.__call__`."""
        return self.twin(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<shared task: {self._shared_name or getattr(self._function, '__qualname__', '?')}>"


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(
    *, bind: Literal[True], **options: Unpack[TaskOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(
    *, bind: Literal[False] = False, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
@overload
def shared_task(
    *, base: type[Task[..., Any]], bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(
    *, base: type[Task[..., Any]], bind: Literal[False] = False, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def shared_task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Declare a task without an app: every app of the process has it, and calls go through the current app.

    Args:
        function: when used without parentheses.
        **options: as for `App.task`.
    """

    def declare(shared: Callable[..., Any]) -> SharedTask[..., Any]:
        _declared.append((shared, dict(options)))
        for app in living_apps():
            app.adopt(shared, options)
        return SharedTask(shared, options)

    return declare(function) if function is not None else declare
