"""What a task's class and its decorator say of it, checked and set when it is registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._celerys import Lacking
from amqp_tasks.app._options import check_destination, check_retry_plan, check_task_options
from amqp_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from amqp_tasks.app._task import Task

__all__ = ("declare", "set_options")

_CLASSES = frozenset({"autoretry_for", "dont_autoretry_for", "throws"})
_TUPLES = _CLASSES | {"sensitive"}


def declare(task: Task[..., Any], options: Mapping[str, Any], *, base: type[Task[..., Any]]) -> None:
    """Set the options of a task that has its name.

    Args:
        task: what they are set on.
        options: what the decorator says; wins over what the class says.
        base: the class that knows our options, and whose values are the defaults.

    Raises:
        ConfigurationError: an unknown option, a value that cannot be, or options that exclude each other.
    """
    options = dict(options)
    _take_on_dead(task, options.pop("on_dead", None))
    inherited = _class_options(type(task), base)
    check_task_options(inherited, _known_options(base), task.name)
    check_retry_plan(inherited, inherited, task.name)
    check_retry_plan({**inherited, **options}, options, task.name)
    set_options(task, {**{key: getattr(task, key) for key in _TUPLES}, **options})


def _take_on_dead(task: Task[..., Any], given: object) -> None:
    """A function given as the option is a hook like a method of its class, and wins over that."""
    if given is not None:
        setattr(task, "on_dead", given)  # noqa: B010 - in place of a method
        task._hooks |= {"on_dead"}
    if not callable(task.on_dead):  # a class attribute may be anything
        raise ConfigurationError(
            f"option of task {task.name!r}: on_dead must be a function of (exc, task_id, args, kwargs, einfo), got"
            f" {task.on_dead!r:.60}"
        )


def set_options(task: Task[..., Any], options: Mapping[str, Any]) -> None:
    """Set options of a task that has been declared, as `task_annotations` do.

    Raises:
        ConfigurationError: an unknown option, a value that cannot be, or a queue beside an exchange.
    """
    check_task_options(options, _known_options(type(task)), task.name)
    for key, value in options.items():
        setattr(task, key, _several(key, value, task.name) if key in _TUPLES else value)
    check_destination(task.queue, task.exchange, f"option of task {task.name!r}: ")


def _class_options(kind: type, base: type) -> dict[str, Any]:
    """Options of ours that a subclass sets as class attributes: they are checked like a decorator's."""
    ours = _known_options(base) - {"name"}
    given = {key: value for key in ours if (value := getattr(kind, key)) is not getattr(base, key)}
    return {key: value for key, value in given.items() if not isinstance(value, property)}


def _known_options(kind: type) -> frozenset[str]:
    return frozenset(
        key
        for base in kind.__mro__
        for key, value in vars(base).items()
        if not key.startswith("_") and not callable(value) and not isinstance(value, property | Lacking)
    )


def _several(option: str, value: Any, task_name: str) -> tuple[Any, ...]:
    # A lone text would be taken apart into characters: a password that is named so would stand in the logs.
    if isinstance(value, str | type) or not isinstance(value, Iterable):
        raise ConfigurationError(
            f"option of task {task_name!r}: {option} takes several, got {value!r}: write {option}=(...,)"
        )
    items: tuple[Any, ...] = tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any values
    if option in _CLASSES and not all(
        isinstance(item, type) and issubclass(item, Exception) for item in items
    ):
        raise ConfigurationError(
            f"option of task {task_name!r}: {option} takes exception classes, got {items!r}"
        )
    return items
