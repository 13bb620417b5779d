"""How far a running task has got, told to who waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._fraction import fraction_of, is_finite
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import ConfigurationError, ResultTimeout
from amqp_tasks.message import ResultRecord, State

if TYPE_CHECKING:
    from amqp_tasks.app._request import Frame
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._task import Task

__all__ = (
    "PROGRESS",
    "Progress",
    "on_progress",
    "progress_in",
    "showing",
    "tell_progress",
    "tell_state",
    "updates",
)

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
        return fraction_of(self.done, self.total)

    @property
    def is_finite(self) -> bool:
        """Whether it can be told and drawn."""
        return is_finite(self.done) and (self.total is None or is_finite(self.total))


def tell_progress(task: Task[..., Any], progress: Progress) -> None:
    """See `Task.progress`."""
    _check(progress)
    frame = _frame(task, "progress")
    if not progress.is_finite:
        return
    now = time.monotonic()
    is_last = progress.total is not None and progress.done >= progress.total
    if not is_last and now - frame.told_progress < _PAUSE:
        return
    frame.told_progress = now
    meta = {"done": progress.done, "total": progress.total, "note": progress.note}
    _tell(task, frame, PROGRESS, meta)
    _tell_followers("task-progress", task, frame, **meta)


def _check(progress: Progress) -> None:
    """Refuse what no caller could read.

    Raises:
        TypeError: an argument is of another type.
    """
    done, total, note = progress.done, progress.total, progress.note
    # Callers without a type checker pass anything.
    if not (
        isinstance(done, int | float)  # pyright: ignore[reportUnnecessaryIsInstance]
        and isinstance(total, int | float | None)  # pyright: ignore[reportUnnecessaryIsInstance]
        and isinstance(note, str)  # pyright: ignore[reportUnnecessaryIsInstance]
    ):
        raise TypeError(
            "progress takes done (a number), total (a number, or None where it is not known) and note (text),"
            f" got {(done, total, note)!r:.100}"
        )


def tell_state(task: Task[..., Any], state: str, meta: Any) -> None:
    """See `Task.update_state`."""
    # Callers without a type checker pass anything.
    if not isinstance(state, str) or not state or state in set(State):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"update_state takes a state of your own, got {state!r:.60}: a task ends by returning or raising"
        )
    frame = _frame(task, "update_state")
    _tell(task, frame, state, meta)
    _tell_followers("task-state", task, frame, state=state, meta=meta)


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


def _tell_followers(kind: str, task: Task[..., Any], frame: Frame, **fields: Any) -> None:
    request = frame.request
    if request.id is not None and not request.is_eager:
        task.app.events.tell(kind, request.id, request.hostname, name=request.task, **fields)


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
    return progress_in(record.result) if record.status == PROGRESS else None


def progress_in(meta: Any) -> Progress | None:
    """What a message says of progress; None when that is not well formed, or its numbers are not finite."""
    if not isinstance(meta, Mapping):
        return None
    told: Mapping[str, Any] = meta  # pyright: ignore[reportUnknownVariableType]
    done, total, note = told.get("done"), told.get("total"), told.get("note")
    if not isinstance(done, int | float):
        return None
    progress = Progress(
        done, total if isinstance(total, int | float) else None, note if isinstance(note, str) else ""
    )
    return progress if progress.is_finite else None


def on_progress(result: AsyncResult[Any], callback: Callable[[Progress], object]) -> None:
    """See `AsyncResult.on_progress`."""
    result.listen(_listener(callback))


def _listener(callback: Callable[[Progress], object]) -> Callable[[ResultRecord], None]:
    def listen(record: ResultRecord) -> None:
        progress = progress_of(record)
        if progress is not None:
            callback(progress)

    return listen


def updates(result: AsyncResult[Any], timeout: float | None) -> Iterator[Progress]:
    """See `AsyncResult.updates`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with _telling(result) as told:
        known = _known(result, told)
        if known is not None:
            yield known
        while True:
            try:
                progress = told.get(timeout=seconds_left(deadline))
            except Empty:
                raise ResultTimeout(
                    f"task {result.id} not finished after {timeout:g} s; it goes on"
                ) from None
            if progress is None:
                return
            if progress != known:  # which may be told once more, at first
                yield progress
            known = None


@contextmanager
def showing(result: AsyncResult[Any]) -> Generator[Callable[[float | None], bool]]:
    """A wait for the end, as `ExpectedResult.wait`, that draws on stderr what is told meanwhile."""
    from amqp_tasks.app._bar import Bar

    with (
        _telling(result) as told,
        Bar(result.task.name if result.task is not None else result.id) as bar,
    ):
        if (known := _known(result, told)) is not None:
            bar.move(known.done, known.total, known.note)

        def wait(timeout: float | None) -> bool:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    progress = told.get(timeout=seconds_left(deadline))
                except Empty:
                    return False
                if progress is None:
                    return True
                bar.move(progress.done, progress.total, progress.note)

        yield wait


def _known(result: AsyncResult[Any], told: SimpleQueue[Progress | None]) -> Progress | None:
    """What was told before `told` was listened to; None where that is not known, or there is news."""
    # Asked first, too: a result that is lost has ended, and looking at it would raise.
    if told.empty() and result.state == PROGRESS:
        known = progress_in(result.result)
        # States come one after the other: any older than this would be in the queue by now.
        if told.empty():
            return known
    return None


@contextmanager
def _telling(result: AsyncResult[Any]) -> Generator[SimpleQueue[Progress | None]]:
    """What is told meanwhile; None after the end."""
    from amqp_tasks.app._result import listening

    told: SimpleQueue[Progress | None] = SimpleQueue()
    with listening(result, _listener(told.put), lambda: told.put(None)):
        yield told
