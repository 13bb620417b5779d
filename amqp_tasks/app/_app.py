"""`App`: settings, tasks and one door to the broker.

Long, as it is what users call: the work is done elsewhere, and most lines here are signatures and what they promise.
"""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NoReturn,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from amqp_tasks._forks import after_fork_in_child
from amqp_tasks.app._celerys import APP, lacks
from amqp_tasks.app._current import note_created, set_current
from amqp_tasks.app._given import keywords, positional, several
from amqp_tasks.app._options import CallOptions, TaskOptions, check_call_options
from amqp_tasks.app._registry import TaskRegistry
from amqp_tasks.app._sender import AppSender
from amqp_tasks.app._task import Task
from amqp_tasks.errors import ClosedError, ConfigurationError

if TYPE_CHECKING:
    from amqp_routing import Binding, Router, Topology
    from amqp_tasks.app._bulk import Pipeline
    from amqp_tasks.app._calls import Calls
    from amqp_tasks.app._control import Control
    from amqp_tasks.app._dead_letters import DeadLetters
    from amqp_tasks.app._delayed import Delayed
    from amqp_tasks.app._migration import Migration
    from amqp_tasks.app._resources import Resources
    from amqp_tasks.app._result import AsyncResult
    from amqp_tasks.app._result_set import ResultSet
    from amqp_tasks.app._workflows import Workflows
    from amqp_tasks.backend import ResultBackend
    from amqp_tasks.canvas import Signature
    from amqp_tasks.events import Events
    from amqp_tasks.idempotency import IdempotencyStore
    from amqp_tasks.settings import Conf, Settings
    from amqp_tasks.transport import Transport

__all__ = ("App",)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Task[..., Any]")


@lacks(APP)
class App:
    """One distributed application: its settings, its tasks, its connections.

    Life: 1. constructing connects nowhere and starts no thread; 2. tasks are registered as their modules are imported;
    3. the first call opens the transport; 4. `close` (or leaving `with app:`) releases everything. A forked child
    starts over at 3.

    Thread safety: any thread, once its modules are imported.

    Args:
        main: name that stands for `__main__` in the names of tasks defined in a script.
        broker: sets `broker_url`.
        backend: sets `result_backend`.
        include: modules with tasks; sets `include`.
        config_source: as for `config_from_object`.
        namespace: as for `config_from_object`.
        set_as_current: shared tasks bind to this app.
        **settings: any setting by its name.

    Raises:
        SettingsError: settings given here are wrong; all faults at once. Other sources are read when first needed.
        UnsupportedTransport: the only fault is a broker URL of a scheme that no transport serves.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | Sequence[str] | None = None,
        backend: str | None = None,
        include: Sequence[str] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        set_as_current: bool = False,
        **settings: Any,
    ) -> None:
        from amqp_tasks.settings import Conf
        from amqp_tasks.settings._written import Written

        given = {"broker_url": broker, "result_backend": backend, "include": include}
        written = Written(settings | {name: value for name, value in given.items() if value is not None})
        # A refused broker URL must not be shown, password and all, by a traceback with locals.
        del broker, backend, given, settings
        self.main = main
        self._registry = TaskRegistry()
        self.conf: Conf = Conf()
        self.conf.update(written)
        self._resources: Resources | None = None
        self._idempotency_store: IdempotencyStore | None = None
        self._is_closed = False
        self._lock = threading.RLock()
        self._autodiscover: list[Callable[[], None]] = []
        self._is_finalized = False
        # Not `_lock`, which a module that another thread imports may be waiting for.
        self._finalizing = threading.RLock()
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        note_created(self)
        _alive.add(self)
        self._adopt_shared()
        if set_as_current:
            self.set_current()

    # -- settings

    @property
    def settings(self) -> Settings:
        """All settings, validated; the same object until one changes.

        Raises:
            SettingsError: all faults at once.
        """
        return self.conf.settings()

    def config_from_object(self, source: Any, *, namespace: str | None = None, force: bool = False) -> None:
        """Read settings from a module, class, instance or mapping, or the dotted name of one, when first needed.

        Args:
            source: where from.
            namespace: only names with this prefix are read, without it: `CELERY` reads `CELERY_TASK_ROUTES`.
            force: read and validate now.

        Raises:
            SettingsError: with `force`, all faults at once.
        """
        self.conf.config_from_object(source, namespace=namespace, force=force)

    def config_from_envvar(self, variable: str, *, silent: bool = False) -> None:
        """Read settings from the module that an environment variable names.

        Raises:
            ConfigurationError: the variable is not set, unless `silent`.
        """
        module_name = os.environ.get(variable)
        if module_name:
            self.config_from_object(module_name)
        elif not silent:
            raise ConfigurationError(
                f"environment variable {variable} is not set: it must name a module with settings"
            )

    @property
    def timezone(self) -> tzinfo:
        """The zone in which naive times are meant (setting `timezone`)."""
        from zoneinfo import ZoneInfo

        return ZoneInfo(self.settings.app.timezone)

    # -- tasks

    @property
    def tasks(self) -> TaskRegistry:
        """The registered tasks by name."""
        return self._registry

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, bind: Literal[True], **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
    @overload
    def task(
        self, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    @overload
    def task(
        self, *, base: type[Task[..., Any]], bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
    @overload
    def task(
        self, *, base: type[Task[..., Any]], bind: Literal[False] = False, **options: Any
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        """Make a function a task: `@app.task`, `@app.task()` or `@app.task(name=..., bind=True, ...)`.

        Args:
            function: when used without parentheses.
            **options: `name`, `bind` (the first parameter is the task itself), `base` (a `Task` subclass), and the
                attributes of `Task`.

        Raises:
            ConfigurationError: an unknown option, or a name that is taken.
        """

        def decorate(decorated: Callable[..., Any]) -> Task[..., Any]:
            return self.adopt(decorated, options)

        if function is None:
            return decorate
        if not callable(function):
            raise ConfigurationError(
                f"@app.task takes options by name, got {function!r}: write @app.task(name=...)"
            )
        return decorate(function)

    def adopt(self, function: Callable[..., Any], options: Mapping[str, Any]) -> Task[..., Any]:
        """Register `function` with the options of `task`.

        Raises:
            ConfigurationError: as `task`.
        """
        given = dict(options)
        base: type[Task[..., Any]] = given.pop("base", None) or Task
        # Callers without a type checker pass anything.
        if not (isinstance(base, type) and issubclass(base, Task)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"base of a task must be a subclass of Task, got {base!r:.80}")
        name = given.pop("name", None)
        if name is None:
            name = self.gen_task_name(function.__name__, function.__module__)
        task = base()
        task._wrap(function, is_bound=bool(given.pop("bind", False)))
        self._add(task, name, given)
        return task

    def register_task(self, task: T | type[T]) -> T:
        """Register a class-based task: an instance or a class of a `Task` subclass with a `run` method.

        Raises:
            ConfigurationError: its name is taken.
        """
        instance: T = task() if isinstance(task, type) else task
        kind = type(instance)
        self._add(instance, instance.name or self.gen_task_name(kind.__name__, kind.__module__), {})
        return instance

    def gen_task_name(self, name: str, module: str) -> str:
        """The name of a task that is given none: `module.name`; for `__main__` the app's main name stands in."""
        if module == "__main__" and self.main:
            module = self.main
        return f"{module}.{name}"

    def _add(self, task: Task[..., Any], name: str, options: Mapping[str, Any]) -> None:
        # Importing the message format costs more than all of this, and no such name can break its rules.
        if not (isinstance(name, str) and name.isascii() and 0 < len(name) < 200):  # pyright: ignore[reportUnnecessaryIsInstance]
            from amqp_tasks.message import check_task_name

            check_task_name(name)
        task._register(self, name, options)
        self._registry.add(task)
        resources = self._resources
        if resources is not None:
            # Those that were there when the resources were made have their annotations.
            resources.annotate(task)

    def _adopt_shared(self) -> None:
        from amqp_tasks.app._shared import declared

        for function, options in declared():
            self.adopt(function, options)

    def autodiscover_tasks(
        self,
        packages: str | Iterable[str] | Callable[[], str | Iterable[str]] | None = None,
        related_name: str = "tasks",
        *,
        force: bool = False,
    ) -> None:
        """Have `<package>.<related_name>` of each package imported by `load_imports` (which workers call), or now.

        Args:
            packages: one name or several, or a callable that gives them when they are needed. Django is not asked, so None is
                refused.
            related_name: the module's name; packages without one are passed over.
            force: import at once.

        Raises:
            ConfigurationError: no packages; with `force`, one that does not exist, or whose name is no text.
        """
        from amqp_tasks.app._imports import import_related

        if packages is None:
            raise ConfigurationError(
                'autodiscover_tasks() needs the names of packages, as in autodiscover_tasks(["shop", "mail"]); in a Django project '
                "call django.setup() and give `lambda: [each.name for each in django.apps.apps.get_app_configs()]`"
            )
        given = packages

        def discover() -> None:
            import_related(
                several(given() if callable(given) else given, "the name of a package"), related_name
            )

        if force:
            discover()
        else:
            self._autodiscover.append(discover)

    def load_imports(self) -> None:
        """Import every module with tasks: the settings `imports` and `include`, then what was autodiscovered.

        Raises:
            ConfigurationError: a module does not exist. An error raised inside of one passes through.
        """
        from amqp_tasks.app._imports import import_named

        import_named((*self.settings.app.imports, *self.settings.app.include))
        waiting, self._autodiscover = self._autodiscover, []
        for discover in waiting:
            discover()

    def finalize(self) -> None:
        """Import all modules with tasks and validate all settings; idempotent. Calls do not need it, workers do it.

        Raises:
            SettingsError: all faults at once.
            ConfigurationError: see `load_imports`; or a route that no call could take.
            RoutingError: a router of `task_routes` that cannot be imported.
        """
        from amqp_tasks.app._builtins import add_builtins

        with self._finalizing:
            if self._is_finalized:
                return
            self.load_imports()
            add_builtins(self)
            self.router.load()
            self._is_finalized = True

    def set_current(self) -> None:
        """Make this the app that shared tasks bind to in this process."""
        set_current(self)

    # -- topology and resources

    @property
    def resources(self) -> Resources:
        """Everything that follows from the settings; made anew when they change.

        Raises:
            ClosedError: after `close`.
            SettingsError: the settings are wrong.
        """
        known = self._resources
        if known is not None and known.generation == self.conf.generation:
            return known
        return self._refresh()

    def _refresh(self) -> Resources:
        from amqp_tasks.app._resources import Resources

        with self._lock:
            if self._is_closed:
                raise ClosedError("this app is closed: make another one, or close it after its last use")
            known = self._resources
            if known is None or known.generation != self.conf.generation:
                self._resources = Resources.of(self, known)
            assert self._resources is not None
            return self._resources

    @property
    def calls(self) -> Calls:
        """The sending side; `Task.delay` and the like use it."""
        return self.resources.calls

    @property
    def topology(self) -> Topology:
        """All configured queues, exchanges and bindings, with the dead-letter queues."""
        return self.resources.topologies.whole

    def topology_for(self, queue_names: Iterable[str]) -> Topology:
        """What the given queues need: themselves, their dead-letter queues, exchanges and bindings.

        Raises:
            UnknownQueue: one is not configured and may not be created.
        """
        return self.resources.topologies.for_queues(queue_names)

    def binding_of(self, queue_name: str) -> Binding | None:
        """How a queue hangs on its exchange; None: by its name on the default exchange."""
        return self.resources.topologies.binding_of(queue_name)

    @property
    def router(self) -> Router:
        """The routes (`task_routes`)."""
        return self.resources.router

    @property
    def transport(self) -> Transport:
        """The door to the broker; connects at its first use."""
        return self.resources.transport

    @property
    def backend(self) -> ResultBackend:
        """Where results go."""
        return self.resources.backend

    @property
    def events(self) -> Events:
        """What running tasks tell of their progress, to anybody: `follow` one of them."""
        return self.resources.events

    @property
    def idempotency_store(self) -> IdempotencyStore | None:
        """Where workers note which calls with an idempotency key are done: that of `task_idempotency_store`, or one that
        was assigned; None: nowhere.

        Raises:
            ConfigurationError: there is no store of that URL, or its extra is missing.
        """
        from amqp_tasks.idempotency import open_store

        with self._lock:
            if self._idempotency_store is None:
                self._idempotency_store = open_store(self.settings)
            return self._idempotency_store

    @idempotency_store.setter
    def idempotency_store(self, store: IdempotencyStore) -> None:
        self._idempotency_store = store

    @property
    def dead_letters(self) -> DeadLetters:
        """What was set aside: look at it, put it back, remove it."""
        from amqp_tasks.app._dead_letters import DeadLetters

        return DeadLetters(self)

    @property
    def delayed(self) -> Delayed:
        """What waits in the broker for its time, where `task_delayed_index` is on."""
        from amqp_tasks.app._delayed import Delayed

        return Delayed(self)

    @property
    def control(self) -> Control:
        """What is said to all workers, now and later: revoke tasks, pause queues, limit rates."""
        from amqp_tasks.app._control import Control

        return Control(self)

    def migration(
        self,
        queue_name: str,
        *,
        to_type: str | None = None,
        management_url: str | None = None,
        quiet: float = 3.0,
        patience: float = 60.0,
    ) -> Migration:
        """The way of a queue that exists to the type and arguments that are declared now: `plan()` looks, `run()` does it.

        Args:
            queue_name: a task queue, or a dead-letter queue.
            to_type: `quorum` or `classic`, in place of the declared type.
            management_url: `http://user:password@host:15672`; None: bindings that others made are not kept.
            quiet: seconds without an arrival after which the queue is swapped.
            patience: seconds to wait for that.

        Raises:
            UnknownQueue: not configured, and may not be created.
            ConfigurationError: a stream, or a URL that is none.
            RoutingError: the queue's other arguments do not go with `to_type`.
        """
        from amqp_tasks.app._migration import Migration

        return Migration(
            self, queue_name, to_type=to_type, management_url=management_url, quiet=quiet, patience=patience
        )

    # -- calling

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """Send a task by its name, without having its function. Options of a task registered here under that name
        apply.

        Raises:
            NotSent, SendUnknown: as `Task.delay`.
            ConfigurationError: an unknown option.
        """
        check_call_options(options)
        return self.calls.send(self.calls.named(name), positional(args), keywords(kwargs), options)

    def send_many(self, calls: Iterable[Sequence[Any]], *, timeout: float | None = None) -> ResultSet[Any]:
        """Send calls in bulk: a window of unconfirmed messages is in flight, and one wait ends it.

        Args:
            calls: each `(task, args, kwargs, options)`, where `task` is a task or a name and what follows may be left
                out. The iterable is consumed as the window moves, so it may be long.
            timeout: seconds for the whole; by default `task_publish_timeout` for each message.

        Returns:
            The results in the order of `calls`.

        Raises:
            BulkSendError: some were not sent; `outcomes` has one entry per call.
        """
        from amqp_tasks.app._bulk import send_many

        return send_many(self, calls, timeout=timeout)

    def pipeline(self) -> Pipeline:
        """Collect calls and send them in bulk: `with app.pipeline() as p: p.delay(add, 1, 2)`."""
        from amqp_tasks.app._bulk import Pipeline

        return Pipeline(self)

    def AsyncResult(self, id: str) -> AsyncResult[Any]:  # noqa: A002, N802 - the field's names
        """The result of a call by its id.

        With `rpc://` only the process that made the call can know it, and only while it holds the AsyncResult that the
        call returned; asking for another id raises `ResultUnavailable` at the first question.
        """
        from amqp_tasks.app._result import AsyncResult

        return AsyncResult(id, app=self)

    # -- workflows

    def signature(
        self,
        value: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **further: Unpack[CallOptions],
    ) -> Signature:
        """A call of this app, packed up: from a task's name, or from a signature's dictionary.

        Args:
            value: name, dictionary or signature; with the latter two nothing else can be given.
            args: positional arguments; what is passed on to it comes before them.
            kwargs: keyword arguments.
            options: as in `apply_async`; they may also be what a client has written, and are checked where it is sent.
            immutable: nothing is passed on to it.
            further: options by name, checked here.

        Raises:
            ConfigurationError: it is no signature; an unknown option, or a value that cannot be.
            TypeError: `args` is a string, or not a sequence.
        """
        from amqp_tasks.canvas import signature

        check_call_options(further)
        stamps = further.pop("stamps", None)
        made = signature(
            value, positional(args), keywords(kwargs), options, immutable=immutable, **further
        ).bound_to(self.sender)
        return made.with_stamps(stamps) if stamps else made

    @property
    def workflows(self) -> Workflows:
        """Workflows: how signatures are sent, and failed workflows of named steps resumed."""
        from amqp_tasks.app._workflows import Workflows

        return Workflows(self)

    @property
    def sender(self) -> AppSender:
        """Who sends the signatures and workflows that belong to this app."""
        return AppSender(self)

    # -- running

    def Worker(self, **options: Any) -> Any:  # noqa: N802 - the field's name
        """A worker of this app in this process; `start()` blocks until `stop()`. See `amqp_tasks.worker.Worker`."""
        return _upper("amqp_tasks.worker").Worker(self, **options)

    def start(self, argv: Sequence[str] | None = None) -> NoReturn:
        """Run the command line with this app; for `if __name__ == "__main__": app.start()`. Ends the process.

        Args:
            argv: arguments after the program's name; by default the process's own.

        Raises:
            SystemExit: always, with the command's exit code.
        """
        raise SystemExit(_upper("amqp_tasks.cli").main(argv, app=self))

    def bugreport(self) -> str:
        """Versions and settings (secrets masked) as text for a bug report."""
        from amqp_tasks.app._report import bugreport

        return bugreport(self)

    def close(self, *, timeout: float = 5.0) -> None:
        """Wait for outstanding publishes up to `timeout` seconds, end all waits for results, disconnect. Idempotent."""
        with self._lock:
            self._is_closed = True
            resources, self._resources = self._resources, None
            store, self._idempotency_store = self._idempotency_store, None
        if store is not None:
            store.close()
        if resources is not None:
            resources.close(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.main or '(no main name)'}: {len(self._registry)} tasks>"


# Weakly, for the hook below; a lock may be held by a thread that the child does not have.
_alive: weakref.WeakSet[App] = weakref.WeakSet()


def _after_fork() -> None:
    for app in list(_alive):
        app._lock = threading.RLock()
        app._finalizing = threading.RLock()


after_fork_in_child(_after_fork)


def _upper(module_name: str) -> Any:
    """Worker and command line stand above this layer: resolved when somebody asks for them, here and nowhere else."""
    return importlib.import_module(module_name)
