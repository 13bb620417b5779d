"""Running a task in the caller: `apply()`, and every call while `task_always_eager` is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from amqp_tasks.app._execution import Outcome, execute, format_traceback
from amqp_tasks.app._hooks import run_hooks
from amqp_tasks.app._options import CallOptions
from amqp_tasks.app._properties import further_options
from amqp_tasks.app._request import Request, child_depth, enclosing_frame
from amqp_tasks.app._result import AsyncResult
from amqp_tasks.backend import ExpectedResult
from amqp_tasks.canvas import signatures, with_options
from amqp_tasks.errors import EncodeError, Replaced, ResultTimeout, Retry, Snooze, TaskPredicate
from amqp_tasks.message import DEFAULT_LIMITS, ResultRecord, State, check_task_id, current_origin
from amqp_tasks.message._headers import PROTOCOL_HEADERS
from amqp_tasks.serialization import content_type_of, dumps, loads

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._task import Task

__all__ = ("EagerResult", "failed_result", "run_eagerly")

R_co = TypeVar("R_co", covariant=True)


class EagerResult(AsyncResult[R_co]):
    """The result of a task that was run here; ended from the start.

    With `task_store_eager_result` the backend knows it too, for as long as somebody holds this.
    """

    def revoke(
        self, terminate: bool = False, signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """Change nothing: it has ended."""

    def _revocable(self) -> Iterator[AsyncResult[Any]]:
        """None: it has ended."""
        return iter(())

    def forget(self) -> None:
        """Have the backend let go of the result; it stays here."""
        self.app.backend.forget(self.id)


@dataclass(slots=True)
class _Finished(ExpectedResult):
    """An expectation that was met before anybody could wait."""

    record: ResultRecord
    stored: ExpectedResult | None = None
    """What the backend has of it; held here, as the backend itself holds it weakly."""

    def peek(self) -> ResultRecord | None:
        """The record."""
        return self.record

    def wait(self, timeout: float | None) -> bool:
        """True at once."""
        return True

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call at once."""
        callback()

    def withdraw(self, callback: Callable[[], None]) -> None:
        """It has been called."""

    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """Nothing more arrives."""

    def unlisten(self, listener: Callable[[ResultRecord], object]) -> None:
        """Nothing to end."""

    def fail(self, error: Exception) -> None:
        """It has ended; nothing changes."""


@dataclass(slots=True)
class _Arguments:
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def run_eagerly(
    task: Task[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: CallOptions,
    *,
    throw: bool,
    serialize: bool,
) -> EagerResult[Any]:
    """Run `task` in this thread, and the callbacks or errbacks of the call.

    Args:
        task: what to run.
        args: positional arguments.
        kwargs: keyword arguments.
        options: of the call; those about sending have no effect.
        throw: re-raise what it raises; a `Retry`, too. Else retries are run here as well, at once.
        serialize: arguments and result go through the serializers, as they would on the wire.

    Raises:
        InvalidArguments: the arguments do not fit.
        EncodeError: an argument cannot be serialized.
        NotRegistered: with `throw`, a task known by name only.
        DepthLimitExceeded: called by tasks that call tasks, more than `task_depth_limit` deep.
        BrokerConnectionError, PublishError, ResultTimeout: with `task_store_eager_result`, its result could not be stored.
    """
    sent = _Arguments(*task.parameters.dump(args, kwargs))
    request = _request(task, options)
    serializer = None
    if serialize:
        serializer = options.get("serializer") or task.serializer or task.app.settings.task.serializer
    outcome = _run_once(task, request, sent, serializer)
    while not (throw and outcome.exception is not None) and isinstance(outcome.exception, Retry | Snooze):
        again = outcome.again
        assert again is not None
        # At once, whatever its time: nobody waits in a test.
        own = {name: value for name, value in again.changes.items() if name not in PROTOCOL_HEADERS}
        request = replace(
            request, args=(), kwargs={}, retries=request.retries + again.is_counted, headers={**request.headers, **own}
        )  # fmt: skip
        if again.args is not None and again.kwargs is not None:
            sent = _Arguments(again.args, again.kwargs)
        outcome = _run_once(task, request, sent, serializer)
    if isinstance(outcome.exception, Replaced):
        from amqp_tasks.app._eager_workflows import run_workflow

        own = {"task_id": request.id, "link": request.callbacks, "link_error": request.errbacks}
        part = with_options(outcome.exception.signature.with_stamps(request.stamps), own)
        return cast(
            "EagerResult[Any]", run_workflow(task.app, part, (), {}, throw=throw, serialize=serialize)
        )
    if throw and outcome.exception is not None:
        raise outcome.exception
    parent = enclosing_frame()
    if parent is not None and parent.task.trail and options.get("add_to_parent", True):
        parent.children.append(request.id or "")
    record = _record(task, request, outcome)
    stored = _stored(task.app, record) if _must_store(task, options) else None
    result = EagerResult[Any](record.task_id, app=task.app, task=task, expected=_Finished(record, stored))
    if request.callbacks or request.errbacks:
        from amqp_tasks.app._eager_workflows import run_follow_ups

        run_follow_ups(task.app, request, result, throw=throw, serialize=serialize)
    return result


def failed_result(app: App, task_id: str, error: Exception) -> EagerResult[Any]:
    """The result of a task that is not run."""
    record = ResultRecord(task_id=task_id, status=State.FAILURE, result=error, date_done=datetime.now(UTC))
    return EagerResult(task_id, app=app, expected=_Finished(record))


def _run_once(task: Task[..., Any], request: Request, sent: _Arguments, serializer: str | None) -> Outcome:
    if serializer is not None:
        args, kwargs = _through(serializer, (list(sent.args), dict(sent.kwargs)), ("args", "kwargs"))
        sent = _Arguments(args, kwargs)
    outcome = execute(task, request, sent)
    if serializer is not None and outcome.exception is None:
        outcome = _through_result(task, outcome)
    if task.hooks:
        run_hooks(task, request, outcome)
    return outcome


def _request(task: Task[..., Any], options: CallOptions) -> Request:
    task_id = options.get("task_id")
    task_id = check_task_id(task_id) if task_id else task.app.calls.new_id()
    parent = enclosing_frame()
    return Request(
        id=task_id,
        task=task.name,
        root_id=(parent.request.root_id or parent.request.id) if parent is not None else task_id,
        parent_id=parent.request.id if parent is not None else None,
        is_eager=True,
        headers=dict(options.get("headers") or {}),
        stamps=dict(options.get("stamps") or {}),
        properties=further_options(options, task.app.timezone),
        ignore_result=options.get("ignore_result"),
        shadow=options.get("shadow"),
        correlation_id=task_id,
        origin=current_origin(),
        hostname=current_origin(),
        depth=child_depth(parent, task.app.settings.task.depth_limit) if parent is not None else 0,
        idempotency_key=options.get("idempotency_key"),
        timelimit=(options.get("time_limit"), options.get("soft_time_limit")),
        callbacks=signatures(options.get("link")) or None,
        errbacks=signatures(options.get("link_error")) or None,
    )


def _through(serializer: str, value: Any, parts: tuple[str, ...]) -> Any:
    content_type, encoding, body = dumps(serializer, value, parts=parts)
    return loads(content_type, encoding, body, accept=(content_type_of(serializer),), limits=DEFAULT_LIMITS)


def _through_result(task: Task[..., Any], outcome: Outcome) -> Outcome:
    try:
        outcome.value = _through(task.app.settings.result.serializer, outcome.value, ())
    except EncodeError as exc:
        outcome.state, outcome.exception, outcome.traceback_text = State.FAILURE, exc, format_traceback(exc)
    return outcome


def _must_store(task: Task[..., Any], options: CallOptions) -> bool:
    own = task.store_eager_result
    stores = task.app.settings.task.store_eager_result if own is None else own
    return stores and task.app.calls.wants_result(task.name, options)


def _stored(app: App, record: ResultRecord) -> ExpectedResult | None:
    """Send the result where a worker would, and wait until it has arrived; None without a backend."""
    timeout, backend = app.settings.task.publish_timeout, app.backend
    reply_to = backend.reply_to(timeout=timeout)
    if not reply_to:
        return None
    expected = backend.expect(record.task_id, reply_to=reply_to)
    backend.store_nowait(
        record,
        reply_to=reply_to,
        correlation_id=record.task_id,
        on_stored=lambda error: expected.fail(error) if error is not None else None,
    )
    if not expected.wait(timeout):
        raise ResultTimeout(
            f"the eager result of task {record.task_id} was sent to {reply_to!r} and has not come within {timeout:g} s"
        )
    return expected


def _record(task: Task[..., Any], request: Request, outcome: Outcome) -> ResultRecord:
    return ResultRecord(
        task_id=request.id or "",
        status=outcome.state,
        result=outcome.value if isinstance(outcome.exception, TaskPredicate | None) else outcome.exception,
        traceback=outcome.traceback_text,
        children=list(outcome.children),
        date_done=datetime.now(UTC),
        parent_id=request.parent_id,
        name=task.name,
        args=list(request.args),
        kwargs=request.kwargs,
        worker=request.hostname,
        retries=request.retries,
    )
