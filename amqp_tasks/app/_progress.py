"""How far a running task has got, told to who waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import ConfigurationError, ResultTimeout
from amqp_tasks.message import ResultRecord, State

if TYPE_CHECKING:
    from amqp_tasks.app._request import Frame
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._task import Task

__all__ = ("PROGRESS", "Progress", "on_progress", "tell_progress", "tell_state", "updates")

PROGRESS = "PROGRESS"
_PAUSE = 0.1
"""Seconds between two that are sent; those in between are left out, but for the last."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task has got.

    Attributes:
        done: how much is done.
        total: of how much; None when that is not known.
        note: what it is at.
    """

    done: float
    total: float | None = None
    note: str = ""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None when the total is not known."""
        return None if not self.total else max(0.0, min(1.0, self.done / self.total))


def tell_progress(task: Task[..., Any], progress: Progress) -> None:
    """See `Task.progress`."""
    frame = _frame(task, "progress")
    now = time.monotonic()
    is_last = progress.total is not None and progress.done >= progress.total
    if not is_last and now - frame.told_progress < _PAUSE:
        return
    frame.told_progress = now
    meta = {"done": progress.done, "total": progress.total, "note": progress.note}
    _tell(task, frame, PROGRESS, meta)


def tell_state(task: Task[..., Any], state: str, meta: Any) -> None:
    """See `Task.update_state`."""
    # Callers without a type checker pass anything.
    if not isinstance(state, str) or not state or state in set(State):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"update_state takes a state of your own, got {state!r:.60}: a task ends by returning or raising"
        )
    _tell(task, _frame(task, "update_state"), state, meta)


def _tell(task: Task[..., Any], frame: Frame, state: str, meta: Any) -> None:
    request = frame.request
    if request.is_eager or not request.reply_to or request.ignore_result:
        return
    record = ResultRecord(task_id=request.id or "", status=state, result=meta)
    task.app.backend.store_nowait(
        record,
        reply_to=request.reply_to,
        correlation_id=request.correlation_id or request.id or "",
        on_stored=_ignore,
    )


def _ignore(error: Exception | None) -> None:
    """A state on the way was or was not sent: the next one replaces it."""
    if error is not None:
        _log.debug("a state could not be sent: %s", error)


def _frame(task: Task[..., Any], what: str) -> Frame:
    frame = task.frame
    if frame is None or frame.request.called_directly:
        raise ConfigurationError(f"{what} is for a running task; {task.name!r} was called as a function")
    return frame


# -- in the caller


def progress_of(record: ResultRecord) -> Progress | None:
    """What a state tells of progress; None when it is another state, or not well formed."""
    meta: Any = record.result
    if record.status != PROGRESS or not isinstance(meta, Mapping):
        return None
    told: Mapping[str, Any] = meta  # pyright: ignore[reportUnknownVariableType]
    done, total, note = told.get("done"), told.get("total"), told.get("note")
    if not isinstance(done, int | float):
        return None
    return Progress(
        done, total if isinstance(total, int | float) else None, note if isinstance(note, str) else ""
    )


def on_progress(result: AsyncResult[Any], callback: Callable[[Progress], object]) -> None:
    """See `AsyncResult.on_progress`."""

    def listen(record: ResultRecord) -> None:
        progress = progress_of(record)
        if progress is not None:
            callback(progress)

    result.listen(listen)


def updates(result: AsyncResult[Any], timeout: float | None) -> Iterator[Progress]:
    """See `AsyncResult.updates`."""
    told: SimpleQueue[Progress | None] = SimpleQueue()
    on_progress(result, told.put)
    result.on_ready(lambda _: told.put(None))
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            progress = told.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except Empty:
            raise ResultTimeout(f"task {result.id} not finished after {timeout:g} s; it goes on") from None
        if progress is None:
            return
        yield progress
