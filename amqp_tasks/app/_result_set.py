"""`ResultSet`: results of several calls, in call order."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from amqp_tasks.app._result import refuse_inside_task
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import ResultTimeout

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult

__all__ = ("ResultSet",)

R_co = TypeVar("R_co", covariant=True)


_CHANGING = frozenset({"add", "append", "clear", "discard", "extend", "remove", "update"})


class ResultSet(Sequence["AsyncResult[R_co]"], Generic[R_co]):
    """Results in the order of their calls; a sequence that is not changed after it was made."""

    def __init__(self, results: Iterable[AsyncResult[R_co]]) -> None:
        self._results = tuple(results)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        progress: bool = False,
        disable_sync_subtasks: bool = True,
    ) -> list[R_co]:
        """All values, in call order.

        Args:
            timeout: seconds for all together.
            propagate: raise the first failure in call order; False puts exception objects in their places.
            progress: show on stderr how many have ended: a bar on a terminal, else a line for each quarter.
            disable_sync_subtasks: see `AsyncResult.get`.

        Raises:
            ResultTimeout: some were not finished in time.
            Exception: as `AsyncResult.get`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if progress:
            self._show(deadline, propagate, disable_sync_subtasks)
        return [
            result.get(seconds_left(deadline), propagate, disable_sync_subtasks=disable_sync_subtasks)
            for result in self._results
        ]

    def _show(self, deadline: float | None, propagate: bool, disable_sync_subtasks: bool) -> None:
        """Draw a bar until all have ended, or one of them not well that is to be raised."""
        from amqp_tasks.app._bar import Bar

        ended = self.as_completed(seconds_left(deadline), disable_sync_subtasks=disable_sync_subtasks)
        with Bar(f"{len(self)} tasks", line="{done} of {total} tasks have ended") as bar:
            bar.move(0, len(self))
            for count, result in enumerate(ended, 1):
                bar.move(count, len(self))
                if propagate and not result.successful():
                    return

    join = join_native = get
    """The same as `get`."""

    def __await__(self) -> Generator[Any, None, list[R_co]]:
        """Wait in an event loop for what `get()` gives or raises; see `AsyncResult.__await__`."""
        from amqp_tasks.app._awaiting import values_of

        return values_of(self._results).__await__()

    def __aiter__(self) -> AsyncIterator[AsyncResult[R_co]]:
        """Each result when it has ended, as `as_completed`, in an event loop, which goes on meanwhile."""
        from amqp_tasks.app._awaiting import as_completed

        return as_completed(self._results)

    def as_completed(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> Iterator[AsyncResult[R_co]]:
        """Each result when it has ended, however it did, in the order in which they do.

        Args:
            timeout: seconds for all together.
            disable_sync_subtasks: see `AsyncResult.get`.

        Raises:
            ResultTimeout: some were not finished in time.
        """
        if disable_sync_subtasks:
            refuse_inside_task()
        deadline = None if timeout is None else time.monotonic() + timeout
        ended: SimpleQueue[AsyncResult[R_co]] = SimpleQueue()
        with ExitStack() as withdrawals:
            for result in self._results:
                withdrawals.callback(result._call_when_ready(ended.put))
            for count in range(len(self._results)):
                try:
                    yield ended.get(timeout=seconds_left(deadline))
                except Empty:
                    raise ResultTimeout(
                        f"{count} of {len(self._results)} tasks finished within {timeout:g} s; the others go on"
                    ) from None

    def iterate(
        self, timeout: float | None = None, propagate: bool = True, *, disable_sync_subtasks: bool = True
    ) -> Iterator[R_co]:
        """The values in the order in which the tasks end; arguments and errors as `get`."""
        for result in self.as_completed(timeout, disable_sync_subtasks=disable_sync_subtasks):
            yield result.get(0, propagate, disable_sync_subtasks=disable_sync_subtasks)

    def iter_native(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """`as_completed` in Celery's form: of each its id and a dictionary of `task_id`, `status`, `result`, `traceback` and
        `children`; of a group among them its id and the list of its results. Arguments and errors as `as_completed`.
        """
        for result in self.as_completed(timeout, disable_sync_subtasks=disable_sync_subtasks):
            yield result.id, _meta(result)

    def ready(self) -> bool:
        """True when all have ended."""
        return all(result.ready() for result in self._results)

    def successful(self) -> bool:
        """True when all have ended well."""
        return all(result.successful() for result in self._results)

    def failed(self) -> bool:
        """True when one has failed."""
        return any(result.failed() for result in self._results)

    def revoke(
        self, terminate: bool = False, signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """Have all of them not run that have not started, those of groups among them too; arguments and errors as `AsyncResult.revoke`."""
        if calls := list(self._revocable()):
            ids = [result.id for result in calls]
            calls[0].app.control.revoke(ids, terminate, signal, timeout=timeout)

    def _revocable(self) -> Iterator[AsyncResult[Any]]:
        """See `AsyncResult._revocable`; a member may itself be of several."""
        for result in self._results:
            yield from result._revocable()

    def waiting(self) -> bool:
        """True when one has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have ended well."""
        return sum(result.successful() for result in self._results)

    def forget(self) -> None:
        """Let go of all of them."""
        for result in self._results:
            result.forget()

    @overload
    def __getitem__(self, index: int) -> AsyncResult[R_co]: ...
    @overload
    def __getitem__(self, index: slice) -> ResultSet[R_co]: ...
    def __getitem__(self, index: int | slice) -> AsyncResult[R_co] | ResultSet[R_co]:
        return ResultSet(self._results[index]) if isinstance(index, slice) else self._results[index]

    if not TYPE_CHECKING:  # for type checkers a class with `__getattr__` has every name

        def __getattr__(self, name: str) -> Any:
            hint = ""
            if name in _CHANGING:
                hint = ": it stays as it was made; make another, as in ResultSet([*results, result])"
            text = f"{type(self).__name__!r} object has no attribute {name!r}{hint}"
            raise AttributeError(text, name=name, obj=self)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[AsyncResult[R_co]]:
        return iter(self._results)

    def __repr__(self) -> str:
        return f"<ResultSet: {len(self._results)} results>"


def _meta(result: Any) -> Any:
    members = getattr(result, "results", None)
    if members is not None:
        return members
    return {
        "task_id": result.id, "status": result.status, "result": result.result,
        "traceback": result.traceback, "children": result.children,
    }  # fmt: skip
