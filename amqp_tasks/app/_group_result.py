"""`GroupResult`: results of a group, under an id of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from amqp_tasks.app._result_set import ResultSet

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult

__all__ = ("GroupResult",)

R_co = TypeVar("R_co", covariant=True)


class GroupResult(ResultSet[R_co]):
    """The results of a group's members, in order.

    Args:
        id: of the group.
        results: of its members.
        parent: the result of what ran before the group in a chain.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name
        results: Iterable[AsyncResult[R_co]],
        *,
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
    ) -> None:
        super().__init__(results)
        self.id = id
        self.parent = parent

    @property
    def results(self) -> list[AsyncResult[R_co]]:
        """The results of its members."""
        return list(self)

    children = results
    """The same as `results`."""

    def on_ready(self, callback: Callable[[GroupResult[R_co]], object]) -> None:
        """Call `callback(self)` when all have ended; the rules of `AsyncResult.then` apply."""
        left, lock = len(self), threading.Lock()

        def ended(_: object) -> None:
            nonlocal left
            with lock:
                left -= 1
                is_last = left == 0
            if is_last:
                callback(self)

        for result in self:
            result.on_ready(ended)
        if not len(self):
            callback(self)

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """The JSON form: `((id, parent), [members])`; `result_from_tuple` reads it."""
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [result.as_tuple() for result in self]

    def as_list(self) -> list[str]:
        """Its id and those of its parents, itself first."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, GroupResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(map(str, self))}]>"
