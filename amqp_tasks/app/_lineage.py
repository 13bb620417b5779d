"""A result and those before it. Workflows have any number of steps, so nothing here recurses from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from amqp_tasks.app._group_result import GroupResult
    from amqp_tasks.app._result import AsyncResult

    AnyResult: TypeAlias = AsyncResult[Any] | GroupResult[Any]

__all__ = ("as_tuple", "lineage", "parents_in", "root_of")


def lineage(result: AnyResult) -> Iterator[AnyResult]:
    """Itself, what ran before it, and so on to what the workflow began with."""
    following: AnyResult | None = result
    while following is not None:
        yield following
        following = following.parent


def root_of(result: AnyResult) -> AnyResult:
    """What the workflow began with."""
    *_, root = lineage(result)
    return root


def as_tuple(result: AnyResult) -> tuple[tuple[str, Any], Any]:
    """See `AsyncResult.as_tuple`; what several follow is described once and referred to by each."""
    described: dict[int, tuple[tuple[str, Any], Any]] = {}
    waiting: list[AnyResult] = [result]
    while waiting:
        each = waiting[-1]
        members: list[AnyResult] | None = getattr(each, "results", None)
        needed = [*(members or ()), *(() if each.parent is None else (each.parent,))]
        missing = [one for one in needed if id(one) not in described]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        before = None if each.parent is None else described[id(each.parent)]
        described[id(each)] = (
            (each.id, before),
            None if members is None else [described[id(member)] for member in members],
        )
    return described[id(result)]


def parents_in(data: Any) -> list[Any]:
    """What `as_tuple` says of a result and those before it, itself last."""
    found: list[Any] = []
    while data is not None:
        found.append(data)
        data = data[0][1]
    return found[::-1]
