"""Many calls at once: a window of unconfirmed messages, one wait at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, cast

from amqp_tasks.app._calls import Prepared, note_sent
from amqp_tasks.app._given import keywords, positional
from amqp_tasks.app._options import CallOptions, check_call_options
from amqp_tasks.app._result_set import ResultSet
from amqp_tasks.app._task import Task
from amqp_tasks.errors import (
    BrokerConnectionError,
    BulkSendError,
    ClosedError,
    ConfigurationError,
    NotSent,
    SendUnknown,
)

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._request import Frame
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.backend import ExpectedResult
    from amqp_tasks.message import OutgoingMessage

__all__ = ("Pipeline", "send_many")

P = ParamSpec("P")
R = TypeVar("R")

# These belong to one publish; a bulk send has one window and one wait.
_SINGLE_ONLY = frozenset({"retry", "retry_policy", "confirm", "timeout"})


class _Batch:
    """Outcomes of the calls of one bulk send, in order. Used by one thread."""

    def __init__(self, app: App, timeout: float | None) -> None:
        self._app, self._timeout = app, timeout
        self._results: list[AsyncResult[Any] | None] = []
        self._outcomes: list[Exception | None] = []
        # Without their messages: there may be millions of calls.
        self._sent: list[tuple[int, ExpectedResult, Frame | None]] = []
        self._has_waited_in_vain = False

    def messages(self, calls: Iterable[Sequence[Any]]) -> Iterator[OutgoingMessage]:
        """Prepare one call after the other; one that cannot be prepared is noted and passed over."""
        for call in calls:
            try:
                task, args, kwargs, options = _parts(self._app, call)
                prepared = self.add(task, args, kwargs, options)
            except Exception as exc:  # noqa: BLE001 - of users' routers and arguments, too: others may have been sent
                self._results.append(None)
                self._outcomes.append(exc)
                continue
            yield prepared.message

    def add(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> Prepared:
        """Prepare a call and note it as sent, until `settle` says otherwise.

        Raises:
            ConfigurationError: an option that only a single publish can have.
            Exception: as `Calls.prepare`.
        """
        if not _SINGLE_ONLY.isdisjoint(options):
            raise ConfigurationError(
                f"{min(_SINGLE_ONLY & options.keys())!r} belongs to a single publish and is no option in a bulk send"
            )
        prepared = self._prepared(task, args, kwargs, options)
        self._sent.append((len(self._results), prepared.expected, prepared.frame))
        self._results.append(prepared.result)
        self._outcomes.append(None)
        return prepared

    def _prepared(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> Prepared:
        calls = self._app.calls
        seconds = calls.timeout({}) if self._timeout is None else self._timeout
        # One wait for a broker that does not answer is enough for all calls: the others only look whether it is back.
        deadline = time.monotonic() + (0.0 if self._has_waited_in_vain else seconds)
        try:
            return calls.prepare(task, args, kwargs, options, deadline=deadline)
        except NotSent as exc:
            self._has_waited_in_vain = isinstance(exc.__cause__, BrokerConnectionError)
            raise

    def run_eagerly(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> AsyncResult[Any]:
        """Run a call here and note its result, for `task_always_eager`."""
        result = self._app.calls.send(task, args, kwargs, options)
        self._results.append(result)
        return result

    def settle(self, outcomes: Sequence[Exception | None]) -> None:
        """Note what the transport says of the messages, in the order they were given."""
        for (index, expected, frame), outcome in zip(self._sent, outcomes, strict=True):
            result = self._results[index]
            assert result is not None
            if outcome is None:
                note_sent(result, frame)
            else:
                self._outcomes[index] = outcome
                expected.fail(outcome)
        self._sent.clear()

    def finish(self) -> ResultSet[Any]:
        """All results.

        Raises:
            BulkSendError: not all were sent.
        """
        if any(outcome is not None for outcome in self._outcomes):
            raise BulkSendError(self._outcomes, self._results)
        return ResultSet(result for result in self._results if result is not None)


def send_many(app: App, calls: Iterable[Sequence[Any]], *, timeout: float | None) -> ResultSet[Any]:
    """See `App.send_many`."""
    batch = _Batch(app, timeout)
    if app.settings.task.always_eager:
        return ResultSet([batch.run_eagerly(*_parts(app, call)) for call in calls])
    source = _Guarded(calls)
    batch.settle(app.transport.publish_many(batch.messages(source), timeout=timeout))
    if source.error is None:
        return batch.finish()
    try:
        sent = batch.finish()
    except BulkSendError as exc:
        raise exc from source.error
    source.error.add_note(f"{len(sent)} calls of this bulk send had been sent before")
    raise source.error


class _Guarded:
    """The caller's iterable; an error in it ends the iteration, so that what is under way is still waited for."""

    def __init__(self, calls: Iterable[Sequence[Any]]) -> None:
        self._calls = calls
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Sequence[Any]]:
        try:
            yield from self._calls
        except Exception as exc:  # noqa: BLE001 - raised again by send_many, after the wait
            self.error = exc


def _parts(
    app: App, call: Sequence[Any]
) -> tuple[Task[..., Any], Sequence[Any], Mapping[str, Any], CallOptions]:
    if isinstance(call, str | Task) or not 1 <= len(call) <= 4:
        raise TypeError(f"a call in a bulk send is (task, args, kwargs, options), got {call!r:.80}")
    parts: list[Any] = [*call, None, None, None]
    task, args, kwargs, options = parts[0], parts[1], parts[2], cast(CallOptions, parts[3] or {})
    check_call_options(options)
    chosen = cast("Task[..., Any]", task) if isinstance(task, Task) else app.calls.named(str(task))
    return chosen, positional(args), keywords(kwargs), options


class Pipeline:
    """Calls collected in a `with` block and sent in bulk, a window at a time, the rest when the block ends.

    When the block raises, what was not yet sent stays unsent: `get()` of those results raises `NotSent`.

    Thread safety: one thread.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._batch = _Batch(app, None)
        self._waiting: list[tuple[OutgoingMessage, float]] = []  # with the monotonic time of each call
        self._window: int = app.settings.task.publish_window
        self._is_open = False
        self._results: ResultSet[Any] | None = None

    @property
    def results(self) -> ResultSet[Any]:
        """All results in call order.

        Raises:
            ClosedError: the block has not ended, or has raised.
        """
        if self._results is None:
            raise ClosedError("the results of a pipeline are there when its `with` block has ended well")
        return self._results

    def delay(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Add a call.

        Raises:
            InvalidArguments, EncodeError, UnknownQueue: as `Task.delay`, at once.
            ClosedError: outside of the `with` block.
        """
        return self._add(task, args, kwargs, {})

    def apply_async(
        self,
        task: Task[..., R],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Add a call with options; all but those of a single publish (`retry`, `retry_policy`, `confirm`, `timeout`).

        Raises:
            ConfigurationError: an option that is not known, or not here.
        """
        check_call_options(options)
        return self._add(task, positional(args), keywords(kwargs), options)

    def _add(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> AsyncResult[Any]:
        if not self._is_open:
            raise ClosedError("a pipeline is used inside of `with app.pipeline() as p:`, once")
        if self._app.settings.task.always_eager:
            return self._batch.run_eagerly(task, args, kwargs, options)
        prepared = self._batch.add(task, args, kwargs, options)
        self._waiting.append((prepared.message, time.monotonic()))
        if len(self._waiting) >= self._window:
            self._flush()
        return prepared.result

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            messages = (_waited(message, since) for message, since in waiting)
            try:
                outcomes = self._app.transport.publish_many(messages)
            except BaseException:
                # Also Ctrl-C, and a task's own time limit: whoever waits is told, and the end of the block has less to settle.
                broken_off = SendUnknown("the bulk send was broken off: the message may be stored")
                self._batch.settle([broken_off] * len(waiting))
                raise
            self._batch.settle(outcomes)

    def __enter__(self) -> Self:
        if self._results is not None or self._is_open:
            raise ClosedError("a pipeline is used once: make another with app.pipeline()")
        self._is_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self._is_open = False
        if kind is not None:
            unsent = NotSent("the pipeline's block raised before this call was sent")
            self._batch.settle([unsent] * len(self._waiting))
            return
        self._flush()
        self._results = self._batch.finish()


def _waited(message: OutgoingMessage, since: float) -> OutgoingMessage:
    """A message with what is left of its delay, which counts from its call."""
    if message.delay is None:
        return message
    return replace(message, delay=max(0.0, message.delay - (time.monotonic() - since)))
