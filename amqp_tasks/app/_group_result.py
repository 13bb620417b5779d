"""`GroupResult`: results of a group, under an id of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from amqp_tasks.app._lineage import as_tuple, lineage, root_of
from amqp_tasks.app._result_set import ResultSet
from amqp_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._result_graph import ResultGraph

__all__ = ("GroupResult", "on_all_ready")

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
    def root(self) -> AsyncResult[Any] | GroupResult[Any]:
        """The result of what the workflow began with; itself where nothing was before."""
        return root_of(self)

    @property
    def results(self) -> list[AsyncResult[R_co]]:
        """The results of its members."""
        return list(self)

    children = results
    """The same as `results`."""

    def on_ready(self, callback: Callable[[GroupResult[R_co]], object]) -> None:
        """Call `callback(self)` when all have ended; the rules of `AsyncResult.then` apply."""
        self._call_when_ready(callback)

    def _call_when_ready(self, callback: Callable[[GroupResult[R_co]], object]) -> Callable[[], None]:
        """See `AsyncResult._call_when_ready`; a member of a set may itself be of several."""
        return on_all_ready(self, lambda: callback(self))

    def graph(self) -> ResultGraph:
        """Its members, what came before them and what follows, as far as it is known here, with states."""
        from amqp_tasks.app._result_graph import ResultGraph

        return ResultGraph.of(self)

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """The JSON form: `((id, parent), [members])`; `result_from_tuple` reads it."""
        return as_tuple(self)

    def as_list(self) -> list[str]:
        """Its id and those of its parents, itself first."""
        return [each.id for each in lineage(self)]

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused, as there is no result store: results go to the process that made the calls, and to no other.

        Raises:
            ConfigurationError: always; says what to do.
        """
        _refuse("save")

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused as `save` is; see `forget`.

        Raises:
            ConfigurationError: always; says what to do.
        """
        _refuse("delete")

    @classmethod
    def restore(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused as `save` is.

        Raises:
            ConfigurationError: always; says what to do.
        """
        _refuse("restore")

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, GroupResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(map(str, self))}]>"


def on_all_ready(results: Collection[AsyncResult[Any]], callback: Callable[[], object]) -> Callable[[], None]:
    """Call `callback` once, when all of them have ended, however they did; at once when they have.

    Returns:
        What withdraws the callback if it has not been called.
    """
    left, lock = len(results), threading.Lock()

    def ended(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            callback()

    withdrawals = ExitStack()
    for result in results:
        withdrawals.callback(result._call_when_ready(ended))
    if not results:
        callback()
    return withdrawals.close


def _refuse(what: str) -> NoReturn:
    raise ConfigurationError(
        f"GroupResult.{what} needs a result store, which there is not yet: with rpc:// results go to the process that made the"
        " calls. Keep the GroupResult there (`as_tuple` and `result_from_tuple` write and read it), have a chord's body take"
        " the values where they are wanted, or follow single tasks by their ids with app.events.follow(id)"
    )
