"""`Task`: a function that can be called here, or sent to be run by a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from inspect import isasyncgenfunction, isgeneratorfunction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, Unpack

from amqp_tasks.app._celerys import TASK, lacks
from amqp_tasks.app._declaration import declare
from amqp_tasks.app._given import keywords, positional
from amqp_tasks.app._options import CallOptions, check_call_options
from amqp_tasks.app._request import FRAME, Frame, Request, enclosing_frame
from amqp_tasks.app._task_hooks import HOOKS, TaskHooks
from amqp_tasks.errors import ConfigurationError, Replaced, Retry

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._arguments import Parameters
    from amqp_tasks.app._eager import EagerResult
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._result_set import ResultSet
    from amqp_tasks.app._retry_plan import RetryPlan
    from amqp_tasks.canvas import Signature

__all__ = ("Task",)

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_DIRECT = Request(called_directly=True)


@lacks(TASK)
class Task(TaskHooks, Generic[P, R_co]):
    """A registered function with the options of its messages.

    Made by `@app.task`, or by subclassing with a `run` method and `app.register_task`. A subclass may set any option
    as a class attribute; a decorator's options win over those. Options that are None come from the settings.

    Attributes:
        name: what messages call it; `module.function` unless given.
        queue: where calls go, unless the call says otherwise; before `task_routes`.
        exchange: like `queue`, to an exchange with `routing_key`.
        routing_key: see `exchange`.
        priority: larger numbers first; needs a queue that knows priorities.
        serializer: name of the serializer of its messages.
        compression: name of the compression of its messages.
        delivery_mode: 1 transient, 2 persistent (quorum queues are always persistent).
        expires: seconds after the call from which it is not started any more.
        ignore_result: no result is sent.
        store_errors_even_if_ignored: an error is sent although results are ignored.
        store_eager_result: the result of a run in the caller goes to the result backend as well.
        acks_late: its message is acked after the run (the default) or before.
        acks_on_failure: False: when it has failed, its message is kept in the dead letters as well, to be put back.
        acks_on_timeout: the same for its hard time limit.
        track_started: a STARTED state is sent when it begins.
        idempotent: a call without an `idempotency_key` has its task's id as one; needs `task_idempotency_store`.
        throws: exception classes that it is known to raise: logged without a traceback, re-created at the caller.
        time_limit: seconds after which its process is ended.
        soft_time_limit: seconds after which an exception is raised in it.
        rate_limit: how many runs each worker node starts at most: `"10/s"`, `"10/m"`, `"10/h"`, or a number per second; 0: no
            limit; None: the setting `task_default_rate_limit`.
        cluster_rate_limit: how many runs all worker nodes together start at most, in the same form; 0 or None: no limit.
        typing: calls are checked against the signature and its annotations.
        pydantic: annotations beyond plain builtins are checked by pydantic, and arguments are coerced to them.
        pydantic_strict: pydantic does not convert between types.
        pydantic_context: what validators find in `info.context`, beside `celery_app` and `celery_task_name`.
        pydantic_dump_kwargs: arguments of pydantic's `model_dump` for the value that it returns, e.g. `{"by_alias": True}`.
        sensitive: names of parameters that logs do not show.
        resultrepr_maxsize: characters of the result in logs.
        trail: calls made while it runs are listed in its result's `children`.
        max_retries: how often it may be retried; None: without limit.
        default_retry_delay: seconds until a retry for which no time is given.
        autoretry_for: exception classes for which it is retried by itself.
        dont_autoretry_for: exception classes for which it is not, though they are in `autoretry_for`.
        retry_kwargs: arguments of these retries; see `retry`.
        retry_backoff: seconds before the first of these retries, doubled with each further one; True is 1, False leaves
            the time to `retry_kwargs` and `default_retry_delay`.
        retry_backoff_max: seconds at most.
        retry_jitter: the time is drawn evenly between 0 and what it would be, so that failures together do not come
            back together.
        retry_plan: which failures are retried, how often and when, as one value in place of the eight above.
    """

    name: str = ""
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    serializer: str | None = None
    compression: str | None = None
    delivery_mode: int | None = None
    expires: float | None = None
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    acks_late: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    track_started: bool | None = None
    throws: tuple[type[Exception], ...] = ()
    time_limit: float | None = None
    soft_time_limit: float | None = None
    rate_limit: float | str | None = None
    cluster_rate_limit: float | str | None = None
    typing: bool = True
    pydantic: bool = True
    pydantic_strict: bool = False
    pydantic_context: Mapping[str, Any] | None = None
    pydantic_dump_kwargs: Mapping[str, Any] | None = None
    sensitive: tuple[str, ...] = ()
    resultrepr_maxsize: int = 1024
    trail: bool = True
    max_retries: int | None = 3
    default_retry_delay: float = 180.0
    autoretry_for: tuple[type[Exception], ...] = ()
    dont_autoretry_for: tuple[type[Exception], ...] = ()
    retry_kwargs: Mapping[str, Any] = MappingProxyType({})
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    retry_plan: RetryPlan | None = None
    idempotent: bool = False

    _app: App | None = None
    _function: Callable[..., Any] | None = None
    _is_bound: bool = False
    _parameters: Parameters | None = None
    _hooks: frozenset[str] = frozenset()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body; a decorated function takes its place. Not called by users: call the task itself.

        Raises:
            NotRegistered: it stands for a task that the app does not have, and was called eagerly.
            NotImplementedError: neither decorated nor overridden.
        """
        if self._function is None:
            if self._app is not None and self.name not in self._app.tasks:
                return self._app.tasks[self.name]  # which raises, with what to do
            raise NotImplementedError(f"task {self.name!r} has no function: override run() or use @app.task")
        if self._is_bound:
            return self._function(self, *args, **kwargs)
        return self._function(*args, **kwargs)

    @property
    def app(self) -> App:
        """The app it is registered with.

        Raises:
            ConfigurationError: an instance that was never registered.
        """
        if self._app is None:
            raise ConfigurationError(f"{type(self).__name__} is not registered: use app.register_task(...)")
        return self._app

    @property
    def request(self) -> Request:
        """The request of the execution that runs in this context; one with `called_directly` outside of any."""
        frame = self.frame
        return frame.request if frame is not None else _DIRECT

    @property
    def frame(self) -> Frame | None:
        """Its innermost execution in this context; None outside of any. For our own use."""
        frame = FRAME.get()
        while frame is not None and frame.task is not self:
            frame = frame.parent
        return frame

    @property
    def hooks(self) -> frozenset[str]:
        """Names of the hooks that its class has of its own."""
        return self._hooks

    @property
    def parameters(self) -> Parameters:
        """Checks and conversions of its arguments and result; built at first use."""
        if self._parameters is None:
            from amqp_tasks.app._arguments import Parameters

            self._parameters = Parameters.of_task(self, self._function or self.run, skip_first=self._is_bound)
        return self._parameters

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it here and now: no message, no check of arguments. `self.request.called_directly` is true then."""
        frame = FRAME.get()
        if frame is not None and frame.is_dispatching and frame.task is self:
            # An overridden __call__ that a worker entered has reached us through super(): it is the same execution.
            frame.is_dispatching = False
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        request = Request(called_directly=True, task=self.name, args=args, kwargs=kwargs)
        token = FRAME.set(Frame(self, request, frame))
        try:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            FRAME.reset(token)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R_co]:
        """Send it to be run by a worker; returns when the broker has stored the message.

        Raises:
            InvalidArguments: the arguments do not fit the signature.
            EncodeError: an argument cannot be serialized.
            UnknownQueue: its queue is not configured and may not be created.
            NotSent: certainly not stored.
            SendUnknown: may be stored; send again with the same `task_id`.

        Thread safety: any thread.
        """
        return self.app.calls.send(self, args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R_co]:
        """Like `delay`, with options of the call; see `CallOptions`.

        Raises:
            ConfigurationError: an unknown option, or a value that cannot be.
            TypeError: `args` is a string, or not a sequence.
        """
        check_call_options(options)
        return self.app.calls.send(self, positional(args), keywords(kwargs), options)

    def options(self, **options: Unpack[CallOptions]) -> TaskCall[P, R_co]:
        """The task with options for its next calls; keeps the typed signature: `add.options(queue="hipri").delay(1, 2)`.

        Raises:
            ConfigurationError: an unknown option, or a value that cannot be.
        """
        check_call_options(options)
        return TaskCall(self, options)

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Unpack[CallOptions],
    ) -> Signature:
        """A call of it, packed up: to be sent later, or to be a part of a workflow.

        Args:
            args: positional arguments; what is passed on to it comes before them.
            kwargs: keyword arguments.
            immutable: nothing is passed on to it.
            options: as in `apply_async`.

        Raises:
            ConfigurationError: an unknown option, or a value that cannot be.
        """
        from amqp_tasks.canvas import Signature

        check_call_options(options)
        stamps = options.pop("stamps", None)
        given = positional(args)
        made = Signature(
            self.name, given, keywords(kwargs), options, immutable=immutable, sender=self.app.sender
        )
        return made.with_stamps(stamps) if stamps else made

    subtask = signature
    """The same as `signature`."""

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """`signature` of these arguments."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """The same, immutable: the result of the task before it is not passed on."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, items: Iterable[Any]) -> Signature:
        """One message that has it run for each item, one after the other; the result is the list of theirs."""
        from amqp_tasks.canvas import xmap

        return xmap(self.s(), items)

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature:
        """The same, with each item as the positional arguments of one run."""
        from amqp_tasks.canvas import xstarmap

        return xstarmap(self.s(), items)

    def chunks(self, items: Iterable[Sequence[Any]], n: int) -> Any:
        """A group of messages, each for `n` items; see `starmap`.

        Raises:
            ConfigurationError: `n` is not above 0.
        """
        from amqp_tasks.canvas import chunks

        return chunks(self.s(), items, n)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Unpack[CallOptions],
    ) -> EagerResult[R_co]:
        """Run it here, as a worker would, and return its finished result; nothing is sent.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            throw: re-raise what it raises.
            options: as in `apply_async`; those about sending have no effect.
        """
        from amqp_tasks.app._eager import run_eagerly

        check_call_options(options)
        return run_eagerly(self, positional(args), keywords(kwargs), options, throw=throw, serialize=False)

    def map_async(self, calls: Iterable[Any], **options: Unpack[CallOptions]) -> ResultSet[R_co]:
        """Send one call per item of `calls`, in bulk: a window of messages is in flight, and one wait ends it.

        Args:
            calls: a tuple is the positional arguments of one call; anything else is its only argument. The iterable
                is consumed as the window moves.
            options: for every call; without `task_id`.

        Returns:
            The results in the order of `calls`.

        Raises:
            BulkSendError: some calls were not sent; it holds an outcome for each.
        """
        check_call_options(options)
        if "task_id" in options:
            raise ConfigurationError(
                "map_async cannot give all its calls the same task_id; use app.send_many"
            )
        return self.app.send_many((self, _as_args(call), None, options) for call in calls)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Have the running task run again later, under the same id, from the queue it came from.

        The message of the next run is sent when this one has ended, and is confirmed before the present one is
        acknowledged. Write `raise self.retry(...)`, so that readers see that nothing after it is run.

        Args:
            args: positional arguments of the next run; by default as they were sent.
            kwargs: keyword arguments of the next run; by default as they were sent.
            exc: the reason; raised when there may be no further retry.
            throw: False returns the `Retry` instead of raising it: the task goes on, and its outcome stands.
            eta: when to run (naive: the app's timezone).
            countdown: seconds until it runs; wins over `eta`. Neither: what `retry_plan` says, or `default_retry_delay`.
            max_retries: in place of the task's own, for this execution; None takes the task's own.
            options: `queue`, `priority`, `headers` (added to the others), `expires`, `shadow`, `ignore_result`,
                `time_limit`, `soft_time_limit`.

        Raises:
            Retry: always, unless `throw` is false.
            MaxRetriesExceededError: no further retry, and no `exc`.
            Exception: `exc`, when there may be no further retry or the task was called directly.
            InvalidArguments: the arguments do not fit the signature.
            ConfigurationError: an option that a retry cannot change, or a wrong time.
            RuntimeError: called in a hook, after the end of the task.
        """
        from amqp_tasks.app._retry import retry

        return retry(
            self, args, kwargs, exc=exc, throw=throw, eta=eta, countdown=countdown, max_retries=max_retries,
            options=options,
        )  # fmt: skip

    def cancelled(self) -> bool:
        """Whether the running task has been revoked meanwhile: ask now and then in a long one, and clean up.

        It goes on all the same; raise `TaskRevokedError` to end it as revoked, so that whoever waits is told. Costs no I/O.
        Also false where nobody can know: outside of a worker, and in one that cannot read the journal.

        Thread safety: any thread that has the task's context.

        See: Celery's `AbortableTask.is_aborted`, which asks the result store.
        """
        frame = enclosing_frame()
        return frame is not None and frame.is_revoked()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell who waits for the running task how far it has got; see `AsyncResult.updates`. At most ten times a second
        is sent, and when `done` has come to `total`; what is not finite (`nan`, `inf`) is not sent, and the task goes on.

        Args:
            done: how much is done, a number.
            total: of how much; None where that is not known.
            note: what it is at.

        Raises:
            ConfigurationError: called directly.
            TypeError: an argument is of another type.
        """
        from amqp_tasks.app._progress import Progress, tell_progress

        tell_progress(self, Progress(done, total, note))

    def update_state(self, state: str, meta: Any = None) -> None:
        """Send who waits a state of the task's own, with what it is to be told: `result.state` and `result.info`.

        Raises:
            ConfigurationError: called directly, or one of the states that have a meaning.
            EncodeError: `meta` cannot be serialized.
        """
        from amqp_tasks.app._progress import tell_state

        tell_state(self, state, meta)

    def replace(self, signature: Any) -> NoReturn:
        """Have `signature` run in place of the running task, under its id: who waits for the task gets what that gives.

        What follows the task in its workflow follows the signature. Write `raise self.replace(...)`.

        Raises:
            Replaced: always.
            ConfigurationError: it is no signature, the task was called directly, or it has called `add_to_chord`.
        """
        from amqp_tasks.app._replacing import replacement

        raise Replaced(replacement(self, signature))

    def signature_from_request(
        self,
        request: Request | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Signature:
        """The call that a request is of, packed up: its id, arguments, queue, callbacks, errbacks, stamps and other options.

        The steps of a chain that follow it, and a chord that it is in, are not part of it: `raise self.replace(...)` with
        it goes on with them, as `retry` does.

        Args:
            request: of this task; None: that of the running one.
            args: other positional arguments.
            kwargs: other keyword arguments.
            options: of the call, which win over those of the request.

        Raises:
            ConfigurationError: an unknown option, or a value that cannot be.
        """
        from amqp_tasks.app._replacing import signature_of_request

        return signature_of_request(self, request or self.request, args, kwargs, options)

    subtask_from_request = signature_from_request
    """The same as `signature_from_request`."""

    def add_to_chord(self, signature: Any) -> AsyncResult[Any]:
        """Send a call as one more member of the chord whose header the running task is in; its value comes last.

        Raises:
            ConfigurationError: the task is in no chord's header, is followed by other steps of a chain in it, or it is no
                signature of a single task.
            NotSent, SendUnknown: as `delay`.
        """
        from amqp_tasks.app._replacing import add_to_chord

        return add_to_chord(self, signature)

    def AsyncResult(self, task_id: str) -> AsyncResult[R_co]:  # noqa: N802 - the field's name
        """The result of a call by its id; see `App.AsyncResult`."""
        from amqp_tasks.app._result import AsyncResult

        return AsyncResult(task_id, app=self.app, task=self)

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _task_by_name, (self.name,)

    def _wrap(self, function: Callable[..., Any], *, is_bound: bool) -> None:
        self._function, self._is_bound = function, is_bound
        self.__doc__, self.__module__ = function.__doc__, function.__module__
        self.__name__, self.__qualname__ = function.__name__, function.__qualname__
        self.__wrapped__ = function

    def _register(self, app: App, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._app = app
        self._hooks = frozenset(
            hook for hook in HOOKS if getattr(type(self), hook) is not getattr(Task, hook)
        )
        declare(self, options, base=Task)
        function = self._function or self.run
        _refuse_generator(function, name)
        if self.sensitive:
            from amqp_tasks.app._arguments import check_sensitive

            check_sensitive(self, function, skip_first=self._is_bound)


class TaskCall(Generic[P, R_co]):
    """A task together with options of its calls; made by `Task.options`."""

    __slots__ = ("_options", "_task")

    def __init__(self, task: Task[P, R_co], options: CallOptions) -> None:
        self._task, self._options = task, options

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R_co]:
        """See `Task.delay`."""
        return self._task.app.calls.send(self._task, args, kwargs, self._options)


def _refuse_generator(function: Callable[..., Any], task_name: str) -> None:
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigurationError(
            f"task {task_name!r} is a generator function: calling it runs none of its lines, and what it yields has nowhere"
            " to go; return a list, or make a task of what is done for each item"
        )


def _as_args(call: Any) -> tuple[Any, ...]:
    return call if isinstance(call, tuple) else (call,)  # pyright: ignore[reportUnknownVariableType] - any values


def _task_by_name(name: str) -> Task[..., Any]:
    from amqp_tasks.app._current import current_app

    return current_app().tasks[name]
