"""`AsyncResult`: the future of one call."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from amqp_tasks.app._celerys import RESULT, lacks
from amqp_tasks.app._current import current_app
from amqp_tasks.app._lineage import as_tuple, lineage, parents_in, root_of
from amqp_tasks.app._request import enclosing_frame
from amqp_tasks.errors import (
    AmqpTasksError,
    ConfigurationError,
    ResultTimeout,
    ResultUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from amqp_tasks.app._app import App
    from amqp_tasks.app._group_result import GroupResult
    from amqp_tasks.app._progress import Progress
    from amqp_tasks.app._result_graph import ResultGraph
    from amqp_tasks.app._task import Task
    from amqp_tasks.backend import ExpectedResult
    from amqp_tasks.message import ResultRecord

__all__ = ("AsyncResult", "allow_join_result", "listening", "refuse_inside_task", "result_from_tuple")

R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)

# After this long a caller who still waits is told when nobody consumes the task's queue.
_DIAGNOSE_AFTER = 5.0

_READY = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
_FAILED = frozenset({"FAILURE", "REVOKED"})

_may_join: ContextVar[bool] = ContextVar("amqp_tasks_may_join", default=False)


@contextmanager
def allow_join_result() -> Generator[None]:
    """Allow `AsyncResult.get()` inside a task, in this context. The task then holds its slot while it waits."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


@lacks(RESULT)
class AsyncResult(Generic[R_co]):
    """What is known of one call: its state, and its result when there is one.

    Two are equal when their ids are. Pickling keeps the id only; the copy asks the current app's backend.

    With `rpc://` a result is kept for as long as somebody holds its AsyncResult, and no longer.

    Thread safety: any thread, any number of waiters.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name
        *,
        app: App | None = None,
        task: Task[..., Any] | None = None,
        expected: ExpectedResult | None = None,
        queue_name: str = "",
        parent: AsyncResult[Any] | GroupResult[Any] | None = None,
    ) -> None:
        self.id = id
        self.parent = parent
        self._app, self._task, self._expected, self._queue_name = app, task, expected, queue_name

    @property
    def root(self) -> AsyncResult[Any] | GroupResult[Any]:
        """The result of what the workflow began with; itself where nothing was before."""
        return root_of(self)

    @property
    def app(self) -> App:
        """The app whose backend is asked."""
        if self._app is None:
            self._app = current_app()
        return self._app

    @property
    def task(self) -> Task[..., Any] | None:
        """The task that was called; None when only the id is known."""
        return self._task

    @property
    def task_id(self) -> str:
        """The same as `id`."""
        return self.id

    @property
    def state(self) -> str:
        """PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED or a custom one; never blocks.

        Raises:
            ResultUnavailable: this process cannot know the result; see `App.AsyncResult`.
            ResultLost, ClosedError, PublishError: it will not come; whoever polls is told instead of waiting for ever.
        """
        record = self._peek()
        return str(record.status) if record is not None else "PENDING"

    @property
    def status(self) -> str:
        """The same as `state`."""
        return self.state

    @property
    def result(self) -> R_co | Exception | Any:
        """The value, or the exception instance after a failure; None while unfinished. Never blocks.

        Raises:
            ResultUnavailable, ResultLost, ClosedError, PublishError: as `state`.
        """
        record = self._peek()
        if record is None or record.status not in _READY:
            return record.result if record is not None and record.status != "RETRY" else None
        return self._exception(record) if record.status in _FAILED else self._value(record)

    @property
    def info(self) -> Any:
        """The same as `result`."""
        return self.result

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        callback: Callable[[str, Any], object] | None = None,
        on_message: Callable[[ResultRecord], object] | None = None,
        progress: bool = False,
        disable_sync_subtasks: bool = True,
    ) -> R_co:
        """Wait for the task and return its value, or raise what it raised.

        Args:
            timeout: seconds; None waits for as long as it takes (Ctrl-C ends it).
            propagate: False returns the exception object instead of raising it.
            callback: called with `(id, value)` before the value, or the exception that is not raised, is returned.
            on_message: called with each state that arrives meanwhile, on the I/O thread: it must not block.
            progress: show on stderr how far the task says it has got: a bar on a terminal, else a line for each quarter.
            disable_sync_subtasks: refuse to wait inside a task; see `allow_join_result`.

        Raises:
            ResultTimeout: not finished within `timeout`; the task goes on.
            ResultUnavailable: this process cannot know the result.
            ResultLost: the reply queue is gone.
            ConfigurationError: called inside a task.
            RuntimeError: called in a callback, on the I/O thread, before the result is there.
            Exception: what the task raised; `RemoteError` where that type is not re-created here.
        """
        if disable_sync_subtasks:
            refuse_inside_task()
        expected = self._expectation()
        with _listening(expected, on_message):
            self._wait(expected, timeout, shows_progress=progress)
        record = expected.peek()
        assert record is not None
        value: Any
        if str(record.status) in _FAILED:
            value = self._exception(record)
            if propagate:
                raise value
        else:
            value = self._value(record)
        if callback is not None:
            callback(self.id, value)
        return value  # type: ignore[no-any-return]

    wait = get
    """The same as `get`."""

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait in an event loop, which goes on meanwhile, for what `get()` gives or raises; `asyncio.timeout` bounds it.

        A wait that is cancelled leaves the task as it is. Inside a task it is refused as `get` is.
        """
        from amqp_tasks.app._awaiting import value_of

        return value_of(self).__await__()

    def ready(self) -> bool:
        """True when it has ended: success, failure or revoked.

        Raises:
            ResultUnavailable, ResultLost, ClosedError, PublishError: as `state`.
        """
        return self.state in _READY

    def successful(self) -> bool:
        """True when it has ended well; raises as `ready`."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """True when it has ended with an exception; raises as `ready`."""
        return self.state == "FAILURE"

    def exists(self) -> bool:
        """True when something is known of it here: a state on the way, or how it ended. Never blocks.

        False as long as nothing has come, and for an id that this process cannot know, for which `state` raises.

        Raises:
            ResultLost, ClosedError, PublishError: as `state`.

        See: Celery's `AsyncResult.exists`, which asks its store in the same sense.
        """
        try:
            return self._peek() is not None
        except ResultUnavailable:
            return False

    def forget(self) -> None:
        """Let go of the result: whatever arrives for it is dropped."""
        expected, self._expected = self._expected, None
        del expected
        self.app.backend.forget(self.id)

    def revoke(
        self, terminate: bool = False, signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """Have the task not run if it has not started; see `Control.revoke`, also for what this raises.

        Args:
            terminate: end it if it runs.
            signal: what its process gets first.
            timeout: seconds; None: `task_publish_timeout`.
        """
        self.app.control.revoke(self.id, terminate=terminate, signal=signal, timeout=timeout)

    def _revocable(self) -> Iterator[AsyncResult[Any]]:
        """The results of the single calls that it stands for, as far as they can be revoked."""
        yield self

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        terminate: bool = False,
        signal: str | int = "SIGTERM",
        *,
        timeout: float | None = None,
    ) -> None:
        """Have all tasks with these stamps not run; see `Control.revoke_by_stamped_headers`."""
        self.app.control.revoke_by_stamped_headers(headers, terminate, signal, timeout=timeout)

    def then(
        self,
        callback: Callable[[AsyncResult[R_co]], object],
        on_error: Callable[[AsyncResult[R_co]], object] | None = None,
    ) -> AsyncResult[R_co]:
        """Call `callback(self)` when it ends well, `on_error(self)` when not; at once when it has ended.

        `on_error` is also called when the result is lost or could not be asked for to the end; `get()` then raises why.
        Runs on the I/O thread and must not block: no `get()` of other results, no `delay()`. An exception in a
        callback is logged.
        """
        expected = self._expectation()

        def fire() -> None:
            chosen = callback if self._has_succeeded() else on_error
            if chosen is not None:
                chosen(self)

        expected.on_ready(fire)
        return self

    def on_ready(self, callback: Callable[[AsyncResult[R_co]], object]) -> None:
        """Call `callback(self)` when it ends, however it does; the rules of `then` apply."""
        self._call_when_ready(callback)

    def _call_when_ready(self, callback: Callable[[AsyncResult[R_co]], object]) -> Callable[[], None]:
        """`on_ready`, and what withdraws the callback if it has not been called."""
        expected = self._expectation()

        def fire() -> None:
            callback(self)

        expected.on_ready(fire)
        return partial(expected.withdraw, fire)

    @property
    def date_done(self) -> datetime | None:
        """When it ended (aware, UTC); None while unfinished."""
        record = self._peek()
        return record.date_done if record is not None else None

    @property
    def traceback(self) -> str | None:
        """The worker's traceback as text, after a failure."""
        record = self._peek()
        return record.traceback if record is not None else None

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """Results of the tasks that it sent; empty while unknown."""
        record = self._peek()
        if record is None or not record.children:
            return []
        return [AsyncResult(_child_id(child), app=self.app, parent=self) for child in record.children]

    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """Call `listener` with each state that arrives from now on, on the I/O thread: it must not block."""
        self._expectation().listen(listener)

    def on_progress(self, callback: Callable[[Progress], object]) -> None:
        """Call `callback` when the task tells how far it has got (`Task.progress`), on the I/O thread: it must not block."""
        from amqp_tasks.app._progress import on_progress

        on_progress(self, callback)

    def updates(self, timeout: float | None = None) -> Iterator[Progress]:
        """What the task tells of its progress, until it has ended; at first what it has told last, if that is known.

        Raises:
            ResultTimeout: it has not ended within `timeout` seconds.
        """
        from amqp_tasks.app._progress import updates

        return updates(self, timeout)

    def iterdeps(
        self, intermediate: bool = False
    ) -> Iterator[tuple[AsyncResult[Any] | None, AsyncResult[Any]]]:
        """This result and those of all tasks that followed it, breadth first, each with the one it is a child of.

        Args:
            intermediate: go on beside those that have not ended, and those that cannot be known here; else raise at the first.

        Raises:
            IncompleteStream: one has not ended, so what follows it is not known.
            ResultUnavailable: this process cannot know one, as it has not sent it: a callback, or what a task has sent itself.
        """
        from amqp_tasks.app._followed import iterdeps

        return iterdeps(self, intermediate=intermediate)

    def collect(
        self, intermediate: bool = False, *, timeout: float | None = None, propagate: bool = True
    ) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Wait for this result and those of all tasks that followed it; each with its value. See `iterdeps` and `get`.

        Raises:
            ResultUnavailable: this process cannot know one, whatever `intermediate` says: there is no value to give.
        """
        from amqp_tasks.app._followed import collect

        return collect(self, intermediate=intermediate, timeout=timeout, propagate=propagate)

    def get_leaf(self, *, timeout: float | None = None) -> Any:
        """The value of the last task that followed this one; raises as `collect`."""
        return deque(self.collect(timeout=timeout), maxlen=1).pop()[1]

    def graph(self) -> ResultGraph:
        """This result, what came before it and what follows, as far as it is known here, with states."""
        from amqp_tasks.app._result_graph import ResultGraph

        return ResultGraph.of(self)

    @property
    def name(self) -> str | None:
        """The task's name, once known (`result_extended`)."""
        record = self._peek()
        return record.name if record is not None else None

    @property
    def args(self) -> Any:
        """Its positional arguments, once known (`result_extended`)."""
        record = self._peek()
        return record.args if record is not None else None

    @property
    def kwargs(self) -> Any:
        """Its keyword arguments, once known (`result_extended`)."""
        record = self._peek()
        return record.kwargs if record is not None else None

    @property
    def worker(self) -> str | None:
        """The node that ran it, once known (`result_extended`)."""
        record = self._peek()
        return record.worker if record is not None else None

    @property
    def retries(self) -> int | None:
        """How often it was retried, once known (`result_extended`)."""
        record = self._peek()
        return record.retries if record is not None else None

    @property
    def queue(self) -> str | None:
        """The queue it came from, once known (`result_extended`)."""
        record = self._peek()
        return record.queue if record is not None else None

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """The JSON form: `((id, parent), None)`; `result_from_tuple` reads it.

        It is as deep as the chain is long, and `json` itself writes some hundred steps; `as_list` has no such limit.
        """
        return as_tuple(self)

    def as_list(self) -> list[str]:
        """Its id and those of its parents, itself first."""
        return [each.id for each in lineage(self)]

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return AsyncResult, (self.id,)

    def _expectation(self) -> ExpectedResult:
        if self._expected is None:
            self._expected = self.app.backend.lookup(self.id)
        return self._expected

    def _peek(self) -> ResultRecord | None:
        return self._expectation().peek()

    def _has_succeeded(self) -> bool:
        try:
            return self.successful()
        except AmqpTasksError:
            return False

    def _value(self, record: ResultRecord) -> Any:
        return self._task.parameters.load_return(record.result) if self._task is not None else record.result

    def _exception(self, record: ResultRecord) -> Exception:
        from amqp_tasks.app._exceptions import exception_of

        return exception_of(record, app=self.app, task=self._task)

    def _wait(self, expected: ExpectedResult, timeout: float | None, *, shows_progress: bool = False) -> None:
        if shows_progress and not expected.wait(0.0):
            from amqp_tasks.app._progress import showing

            with showing(self) as wait:
                self._wait_by(wait, timeout)
        else:
            self._wait_by(expected.wait, timeout)

    def _wait_by(self, wait: Callable[[float | None], bool], timeout: float | None) -> None:
        if timeout is not None and timeout <= _DIAGNOSE_AFTER:
            if not wait(timeout):
                self._raise_timeout(timeout)
            return
        started = time.monotonic()
        if wait(_DIAGNOSE_AFTER):
            return
        self._diagnose(1.0 if timeout is None else min(1.0, timeout - _DIAGNOSE_AFTER))
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
        if not wait(left):
            self._raise_timeout(timeout or 0.0)

    def _raise_timeout(self, timeout: float) -> NoReturn:
        error = ResultTimeout(
            f"task {self.id} not finished after {timeout:g} s (state {self.state}); it goes on"
        )
        error.task_id = self.id
        raise error

    def _diagnose(self, timeout: float) -> None:
        """Tell once why a wait may never end: a queue without a consumer."""
        if not self._queue_name:
            return
        try:
            status = self.app.transport.queue_status(self._queue_name, timeout=timeout)
        except AmqpTasksError:
            return
        extra = {"action": "result_wait", "task_id": self.id, "queue": self._queue_name}
        if status is None:
            _log.warning("waiting for task %s, but queue %r is gone", self.id, self._queue_name, extra=extra)
        elif status.consumers == 0:
            _log.warning(
                "waiting for task %s, but no worker consumes queue %r (%d messages ready): start one with "
                "`amqp-tasks worker -Q %s`",
                self.id,
                self._queue_name,
                status.messages,
                self._queue_name,
                extra=extra,
            )


def result_from_tuple(data: Any, app: App | None = None) -> AsyncResult[Any] | GroupResult[Any]:
    """The result that `as_tuple` of a result or group describes, with its parents; lists as JSON gives them are fine."""
    from amqp_tasks.app._group_result import GroupResult

    made: AsyncResult[Any] | GroupResult[Any] | None = None
    for (task_id, _), members in parents_in(data):
        if members is None:
            made = AsyncResult(task_id, app=app, parent=made)
        else:
            results: Any = [result_from_tuple(member, app) for member in members]
            made = GroupResult(task_id, results, parent=made)
    assert made is not None
    return made


def _child_id(child: Any) -> str:
    # A result tuple is [[id, parent], children]; our own records may carry plain ids.
    while not isinstance(child, str):
        child = child[0]
    return child


def refuse_inside_task() -> None:
    """Refuse to wait for results while a task runs in this context.

    Raises:
        ConfigurationError: one does, and `allow_join_result` was not used.
    """
    frame = enclosing_frame()
    if frame is not None and not frame.request.is_eager and not _may_join.get():
        raise ConfigurationError(
            f"waiting for a result inside task {frame.task.name!r} would hold its slot while it waits, and can stop all workers: "
            "pass the result on instead, or use `with allow_join_result():`"
        )


@contextmanager
def _listening(
    expected: ExpectedResult, listener: Callable[[ResultRecord], object] | None
) -> Generator[None]:
    if listener is None:
        yield
        return
    expected.listen(listener)
    try:
        yield
    finally:
        expected.unlisten(listener)


@contextmanager
def listening(
    result: AsyncResult[Any], listener: Callable[[ResultRecord], object], on_end: Callable[[], None]
) -> Generator[None]:
    """Call `listener` with each state that arrives meanwhile, and `on_end` when it ends; nothing is left behind of either."""
    expected = result._expectation()
    with _listening(expected, listener):
        expected.on_ready(on_end)
        try:
            yield
        finally:
            expected.withdraw(on_end)
