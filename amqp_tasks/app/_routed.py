"""What routes are asked about calls that stand for others: `map` and its kind, errbacks, and what makes a group's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from amqp_tasks.app._errbacks import CALL_ERRBACK
from amqp_tasks.canvas import ACCUMULATE, Signature, signature

if TYPE_CHECKING:
    from amqp_tasks.app._destination import Destination

__all__ = ("bound_list_maker", "is_bound", "routed_arguments")

_WHERE = frozenset({"queue", "exchange", "routing_key"})
_TOLD = ("request", "error", "traceback")


def routed_arguments(
    task_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments that routes are asked with: of a call that stands for others, those of the first of these.

    Raises:
        ConfigurationError: it stands for something that is no signature.
    """
    call: Any = kwargs.get("task")
    if not isinstance(call, Mapping):
        return args, kwargs
    match task_name:
        case "celery.map":
            given = _first_item(kwargs)
        case "celery.starmap" | "celery.chunks":
            given = tuple(item for items in _first_item(kwargs) for item in items)
        case _ if task_name == CALL_ERRBACK:
            given = tuple(kwargs.get(name) for name in _TOLD)
        case _:
            return args, kwargs
    whole = signature(call).clone(given)  # pyright: ignore[reportUnknownArgumentType] - any mapping
    return whole.args, whole.kwargs


def _first_item(kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    items: Any = kwargs.get("it")
    return tuple(cast("Sequence[Any]", items)[:1]) if isinstance(items, list | tuple) else ()


def bound_list_maker(body: Signature, destination: Destination, priority: int | None) -> Signature:
    """The body of a chord; one that only makes the list goes where the first member does: its workers need not consume any other queue."""
    if body.task != ACCUMULATE or is_bound(body.task, body.options):
        return body
    where = {
        name: value
        for name, value in (*destination.options.items(), ("priority", priority))
        if value is not None
    }
    return body.changed(options={**body.options, **where})


def is_bound(task_name: str, options: Mapping[str, Any]) -> bool:
    """Whether a call goes where another went, and needs no route of its own."""
    return task_name == ACCUMULATE and not _WHERE.isdisjoint(options)
