"""A result and those of the tasks that followed it: callbacks, next steps, and what a task has sent itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from amqp_tasks.errors import IncompleteStream, ResultUnavailable

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult

    Step: TypeAlias = tuple[AsyncResult[Any] | None, AsyncResult[Any]]

__all__ = ("collect", "iterdeps")


def iterdeps(result: AsyncResult[Any], *, intermediate: bool) -> Iterator[Step]:
    """See `AsyncResult.iterdeps`."""
    waiting: deque[Step] = deque([(None, result)])
    while waiting:
        parent, each = waiting.popleft()
        yield parent, each
        try:
            _check_known(parent, each)
        except ResultUnavailable:
            if parent is None or not intermediate:
                raise
            continue
        if each.ready():
            waiting.extend((each, child) for child in each.children)
        elif not intermediate:
            raise IncompleteStream(
                f"task {each.id} has not ended (state {each.state}): wait for it, or say intermediate=True"
            )


def collect(
    result: AsyncResult[Any], *, intermediate: bool, timeout: float | None, propagate: bool
) -> Iterator[tuple[AsyncResult[Any], Any]]:
    """See `AsyncResult.collect`."""
    result.get(timeout, propagate)
    for parent, each in iterdeps(result, intermediate=intermediate):
        _check_known(parent, each)
        yield each, each.get(timeout, propagate)


def _check_known(parent: AsyncResult[Any] | None, result: AsyncResult[Any]) -> None:
    """Refuse to go on with a result that this process cannot know.

    Raises:
        ResultUnavailable: of a child, says which it is and what to do instead.
    """
    try:
        result.state  # noqa: B018 - asked for what it raises
    except ResultUnavailable as exc:
        if parent is None:
            raise
        raise ResultUnavailable(
            f"the result of task {result.id}, which followed task {parent.id}, cannot be known here: this process has not sent"
            " it (a callback, or what a task has sent itself), or nobody here holds its AsyncResult. Use"
            " iterdeps(intermediate=True) or graph(), which pass it by, or make it a step of a chain, whose results come here"
        ) from exc
