"""`Worker`: one node, as a program or inside one."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.app._account import declare_account
from amqp_tasks.app._indexing import declare_index
from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import AmqpTasksError, BrokerConnectionError, ConfigurationError, UnknownQueue
from amqp_tasks.settings import Level
from amqp_tasks.transport import ConsumerState, TopologyMode
from amqp_tasks.transport._connect import connect
from amqp_tasks.worker._alone import Alone
from amqp_tasks.worker._child import Shared, make_child_main
from amqp_tasks.worker._commands import Commands
from amqp_tasks.worker._health import (
    MAX_AGE,
    Health,
    HealthFile,
    NodeFacts,
    Standing,
    State,
    keeping_health_file,
    telling,
)
from amqp_tasks.worker._introduction import introduce, warn_of_root
from amqp_tasks.worker._journal import JournalFollower, JournalState
from amqp_tasks.worker._logs import LogSetup
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._options import Asked, WorkerOptions, queue_names, resolve
from amqp_tasks.worker._orphans import reap_strays
from amqp_tasks.worker._paused import PausedQueues
from amqp_tasks.worker._process import ProcessReports, WorkerProcess
from amqp_tasks.worker._rates import RateLimitChanges, rates_of
from amqp_tasks.worker._records import RecordTable
from amqp_tasks.worker._releases import Releases
from amqp_tasks.worker._revocations import Revocations
from amqp_tasks.worker._revoked_stamps import RevokedStamps
from amqp_tasks.worker._signals import acting_on_signals, is_term_cold, noting_signals
from amqp_tasks.worker._supervisor import Supervisor, SupervisorRules
from amqp_tasks.worker._systemd import service_manager
from amqp_tasks.worker._titles import set_title
from amqp_tasks.worker._unacked import claim_after

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.message import JournalEntry
    from amqp_tasks.transport import ConsumerEvent, Transport
    from amqp_tasks.worker._records import ProcessRecords

__all__ = ("Worker",)

logger = logging.getLogger(__name__)

_RETRY_PAUSE = 1.0
_SLICE = 0.1
_HUNG_AFTER = 60.0
"""Seconds without a sign of life after which a node without a supervisor is said to hang, where `worker_hung_timeout` is None."""


class _StoppedEarly(Exception):
    """Stopped before the broker was there."""


class Worker:
    """Runs an app's tasks until stopped.

    Life: 1. made; nothing happens yet; 2. `start` blocks: it imports the app's modules, connects, consumes; `ready` is set when
    all consumers are there; 3. `stop` (any thread) or a signal ends it; 4. `start` returns the exit code. Once only.

    With `prefork` or `threads` tasks run in processes of their own. With `solo`, and with `memory://`, they run in the
    calling process: so they do when `start` is called in another thread than the main one and no pool is named.

    Args:
        app: whose tasks.
        queues: names of the queues to consume, in a list or in one text with commas; None: all of the app's.
        exclude_queues: not these.
        purge: remove the waiting messages of the queues that it consumes, once, before it does; dead letters and delayed tasks
            stay.
        concurrency: tasks at the same time; None: setting `worker_concurrency`, else the usable CPUs.
        pool: `prefork`, `threads` or `solo`; None: setting `worker_pool`.
        hostname: name of the node; `%h`, `%n` and `%d` are host, its first part and its domain. Default `worker@%h`.
        prefetch_multiplier: messages held per slot; None: setting, else adaptive.
        max_tasks_per_child: tasks after which a process is replaced; None: setting.
        max_memory_per_child: resident KiB after which it is; None: setting.
        time_limit: seconds after which the process of a task that sets none is ended; None: setting `task_time_limit`.
            Only with `prefork`.
        soft_time_limit: seconds after which a task that sets none is interrupted; None: setting `task_soft_time_limit`.
        loglevel: set logging up with this least level; None leaves logging to the program.
        logfile: lines go there and not to stderr; needs `loglevel`.
        show_banner: print what it is to stdout before it consumes.

    Raises:
        ConfigurationError: an argument has a value that it cannot have.

    Thread safety: `stop` and `ready` from any thread.
    """

    def __init__(
        self,
        app: App,
        *,
        queues: str | Sequence[str] | None = None,
        exclude_queues: str | Collection[str] = (),
        purge: bool = False,
        concurrency: int | None = None,
        pool: str | None = None,
        hostname: str | None = None,
        prefetch_multiplier: int | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        loglevel: str | int | None = None,
        logfile: str | None = None,
        show_banner: bool = False,
    ) -> None:
        self.app = app
        self.ready = threading.Event()
        self._asked = Asked(
            queues=None if queues is None else queue_names(queues),
            exclude_queues=queue_names(exclude_queues),
            concurrency=concurrency,
            pool=pool,
            hostname=hostname,
            prefetch_multiplier=prefetch_multiplier,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child=max_memory_per_child,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
        )
        self._purges = purge
        self._loglevel, self._logfile, self._show_banner = loglevel, logfile, show_banner
        self._logs: LogSetup | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._stop_now: Callable[[float | None], None] | None = None
        self._is_consuming: Callable[[], bool] = bool
        self._was_started = False
        self._is_stopping = False
        self._releases = Releases()
        # What is told of the node's health besides; set once by whoever follows the journal.
        self._paused: PausedQueues | None = None
        self._follower: JournalFollower | None = None

    @property
    def is_consuming(self) -> bool:
        """Whether every queue has its consumers now; false while the connection is lost."""
        return self._is_consuming()

    def start(self) -> int:
        """Run the node; returns 0 after a stop that left nothing unfinished, else 1.

        Raises:
            ConfigurationError: settings, queues or pool do not allow to start.
            BrokerConnectionError: refused, or unreachable and not to be tried again.
            TopologyMismatch: the broker's queues differ from ours.
            RuntimeError: started before.
        """
        with self._lock:
            if self._was_started:
                raise RuntimeError("a Worker is started once: make another one")
            self._was_started = True
        try:
            return self._run()
        finally:
            self._stopped.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop warm within `timeout` seconds (default: setting `worker_stop_timeout`), and wait until `start` has ended.

        A second call while the first one waits stops cold. Before `start` it only forbids it. Idempotent.

        Returns:
            Whether it has ended.
        """
        with self._lock:
            stop_now, self._is_stopping = self._stop_now, True
            if not self._was_started:
                self._was_started = True
                self._stopped.set()
        if stop_now is not None:
            stop_now(timeout)
        worker = self.app.settings.worker
        patience = (worker.stop_timeout if timeout is None else timeout) + worker.cold_stop_timeout + 5.0
        return self._stopped.wait(patience)

    def _run(self) -> int:
        app = self.app
        app.load_imports()
        app.finalize()
        settings = app.settings
        app.idempotency_store  # noqa: B018 - made here, so that what is wrong with it is told now and for all processes
        if self._loglevel is not None:
            self._logs = LogSetup(settings, level=self._loglevel, logfile=self._logfile)
            self._logs.install()
        warn_of_root()
        is_embedded = settings.broker.url[0].scheme == "memory"
        options = resolve(app, self._asked, default_pool=self._default_pool(is_embedded))
        if is_embedded and options.pool.name == "prefork":
            raise ConfigurationError(
                "memory:// lives in one process, so the pool cannot be prefork: use threads or solo, or RabbitMQ"
            )
        with keeping_health_file(settings.worker.health_file) as health_file:
            if options.layout.processes and not is_embedded:
                return self._supervise(options, health_file)
            return self._run_here(options, health_file)

    def _default_pool(self, is_embedded: bool) -> str:
        """The pool when no argument names one."""
        configured: str = self.app.settings.worker.pool
        if self.app.conf.origin("worker_pool").level is not Level.DEFAULT:
            return configured
        if is_embedded:
            return "threads"
        return configured if threading.current_thread() is threading.main_thread() else "solo"

    # With worker processes.

    def _supervise(self, options: WorkerOptions, health_file: HealthFile | None) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                f"the pool {options.pool.name!r} forks, which only the main thread can do safely: start the worker "
                "there, or use pool='solo'"
            )
        worker = self.app.settings.worker
        rules = SupervisorRules(
            node=options.node,
            processes=options.layout.processes,
            stop_timeout=worker.stop_timeout,
            cold_stop_timeout=worker.cold_stop_timeout,
            alive_timeout=worker.proc_alive_timeout,
            lost_wait=worker.lost_wait,
            hung_timeout=worker.hung_timeout,
            claim_after=claim_after(self.app, options),
        )
        revocations = Revocations(max_age=worker.journal_max_age, clock=SYSTEM_CLOCK)
        stamps = RevokedStamps(max_age=worker.journal_max_age, clock=SYSTEM_CLOCK)
        shared = Shared(
            records=RecordTable(rules.places, options.layout.slots),
            rate_limits=rates_of(self.app, clock=SYSTEM_CLOCK),
        )
        self._releases.add(shared.rate_limits.close)
        # Made here, as it does nothing before its first use: that comes after the fork.
        transport = connect(self.app.settings)
        self._releases.add(partial(transport.close, timeout=1.0))
        writer = JournalWriter(transport, self.app.settings, sender=options.node)
        _preload(self.app)
        supervisor = Supervisor(
            rules,
            records=shared.records,
            child_main=make_child_main(self.app, options, shared, partial(self._enter_process, options.node)),
            registers=(
                revocations,
                stamps,
                PausedQueues(options.queue_names),
                RateLimitChanges(shared.rate_limits),
            ),
            writer=writer,
            is_terminated=revocations.is_terminated if options.pool.capabilities.end_a_task else _never,
            prepare=lambda: self._prepare_aside(options, supervisor, writer, transport),
            on_ready=partial(self._announce, options),
            health=self._health(health_file, options),
        )
        self._offer_stop(supervisor.stop, lambda: supervisor.is_consuming)
        try:
            with acting_on_signals(
                supervisor.loop,
                stop=supervisor.stop,
                terminate=supervisor.cut if self._is_term_cold() else None,
                dump_children=supervisor.dump_stacks,
                restart=None if _has_terminal() else supervisor.restart,
                reap=reap_strays,
            ):
                return supervisor.run()
        finally:
            self._releases.release()

    def _is_term_cold(self) -> bool:
        """As in Celery, where a time for a soft stop comes before a cold one."""
        is_soft = self.app.conf.origin("worker_stop_timeout").level is not Level.DEFAULT
        return is_term_cold(os.environ) and not is_soft

    def _enter_process(self, node: str, number: int) -> None:
        set_title(node, f"process {number}")
        if self._logs is not None:
            self._logs.enter_process(f"Worker-{number}")

    def _prepare_aside(
        self, options: WorkerOptions, supervisor: Supervisor, writer: JournalWriter, transport: Transport
    ) -> None:
        """On connections of the supervisor's own, by which it goes on reading the journal."""
        self._prepare(transport, options)
        self._follow_journal(
            transport,
            writer,
            options,
            supervisor.loop,
            lambda entries: supervisor.loop.call_soon(partial(supervisor.learn, entries)),
        )

    # In this process.

    def _run_here(self, options: WorkerOptions, health_file: HealthFile | None) -> int:
        loop = Loop()
        failure: list[Exception] = []
        consuming = threading.Event()

        def on_event(event: ConsumerEvent) -> None:
            if event.state is ConsumerState.CONSUMING:
                consuming.set()
                if not self.ready.is_set():
                    self._announce(options)
            elif event.state is ConsumerState.FAILED:
                consuming.clear()
                failure.append(event.error or ConfigurationError("the consumer failed"))
                process.stop(0.0)
            else:
                consuming.clear()

        def on_broken(why: str) -> None:
            failure.append(AmqpTasksError(why))

        def on_ended(is_clean: bool) -> None:
            alone.close()
            self._ended_here(is_clean)

        standing = Standing(SYSTEM_CLOCK.monotonic())
        rate_limits = rates_of(self.app, clock=SYSTEM_CLOCK)
        records = RecordTable(1, options.layout.slots).of_process(0)
        transport = self.app.transport
        writer = JournalWriter(transport, self.app.settings, sender=options.node)
        alone = Alone(writer, records, claim_after=claim_after(self.app, options), loop=loop)
        process = WorkerProcess(
            self.app,
            options,
            records=records,
            verdicts=alone,
            rate_limits=rate_limits,
            reports=ProcessReports(
                event=on_event,
                queues=standing.take,
                recycling=_ignore,
                ended=on_ended,
                ran=_nothing,
                broken=on_broken,
            ),
            loop=loop,
            owns_transport=False,
            registers=alone.registers,
        )
        try:
            tell = self._teller(health_file, options, process, standing, records)
            with noting_signals(self._note_stop), telling(tell):
                self._prepare(transport, options)
                self._follow_journal(transport, writer, options, loop, process.learn)
                self._offer_stop(partial(self._stop_here, process, options.node), consuming.is_set)
                alone.start()
                process.begin()
                is_clean = self._serve(process, loop, options)
        except _StoppedEarly:
            return 0
        finally:
            self._releases.release()
            loop.close()
            rate_limits.close()
        if failure and not self.ready.is_set():
            raise failure[0]
        return 0 if is_clean and not failure else 1

    def _teller(
        self,
        health_file: HealthFile | None,
        options: WorkerOptions,
        process: WorkerProcess,
        standing: Standing,
        records: ProcessRecords,
    ) -> Callable[[], None] | None:
        """What is called now and then for the node's health; None: nobody wants to know."""
        # What hangs with the interpreter does not even write, and may work in C code.
        hung_after = self.app.settings.worker.hung_timeout or _HUNG_AFTER
        health = self._health(health_file, options, hung_after=hung_after)
        if health is None:
            return None

        def tell() -> None:
            now, is_stopping = SYSTEM_CLOCK.monotonic(), process.is_stopping or self._is_stopping
            state = State.RUNNING if self.ready.is_set() else State.STARTING
            report = standing.report(os.getpid(), records, now, is_stopping=is_stopping)
            health.tell(State.STOPPING if is_stopping else state, [report], now)

        return tell

    def _note_stop(self) -> None:
        self._is_stopping = True

    def _serve(self, process: WorkerProcess, loop: Loop, options: WorkerOptions) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return process.run()
        if self._logs is not None:
            self._logs.enter_process("Solo")
        stop = partial(self._stop_here, process, options.node)
        with acting_on_signals(loop, stop=stop, terminate=process.cut if self._is_term_cold() else None):
            return process.run()

    def _stop_here(self, process: WorkerProcess, node: str, timeout: float | None = None) -> None:
        logger.info("%s: asked to stop, warm stop first", node, extra={"action": "warm_stop"})
        process.advance_stop(self.app.settings.worker.stop_timeout if timeout is None else timeout)

    def _ended_here(self, is_clean: bool) -> None:
        """A task that still runs cannot be ended from outside; as a program we end with it. Its message is requeued."""
        if not is_clean and self._logs is not None:
            logger.warning("the worker ends with unfinished tasks", extra={"action": "unfinished"})
            sys.stdout.flush()
            os._exit(1)

    # Both.

    def _health(
        self, file: HealthFile | None, options: WorkerOptions, *, hung_after: float | None = None
    ) -> Health | None:
        manager = service_manager(os.environ)
        tellers = [each.tell for each in (file, manager) if each is not None]
        if not tellers:
            return None
        facts = NodeFacts(
            node=options.node,
            queue_names=options.queue_names,
            processes=options.layout.processes or 1,
            max_age=max(MAX_AGE, hung_after or 0.0),
            hung_after=hung_after,
            paused=self._paused_names,
            is_connected=self._is_connected,
        )
        return Health(tellers, facts)

    def _paused_names(self) -> Collection[str]:
        return self._paused.names if self._paused is not None else ()

    def _is_connected(self) -> bool:
        return self._follower is not None and self._follower.is_connected

    def _prepare(self, transport: Transport, options: WorkerOptions) -> None:
        """Connect, see to the topology, and purge the queues if that was asked for."""
        self._open(transport)
        settings = self.app.settings
        mode = TopologyMode(settings.app.topology)
        transport.ensure_topology(options.topology, mode=mode)
        declare_account(transport, mode)
        if settings.task.delayed_index and mode is not TopologyMode.NONE:
            declare_index(transport, mode)
        if self._purges:
            _purge(transport, options.queue_names)

    def _follow_journal(
        self,
        transport: Transport,
        writer: JournalWriter,
        options: WorkerOptions,
        loop: Loop,
        on_entries: Callable[[Sequence[JournalEntry]], None],
    ) -> None:
        """Read the journal as it stands, go on in the background, and say what this node is.

        Raises:
            _StoppedEarly: a stop came first.
        """
        # A copy of what the owner of `on_entries` learns, which is another thread.
        paused = PausedQueues(options.queue_names)
        seen = JournalState((paused,))

        def on_read(entries: Sequence[JournalEntry]) -> None:
            seen.learn(entries)
            on_entries(entries)

        follower = JournalFollower(
            transport,
            writer,
            on_entries=on_read,
            call_later=loop.call_later,
            commands=Commands.of(self.app.settings.worker),
        )
        self._paused, self._follower = paused, follower
        self._releases.add(follower.close)
        follower.start()
        follower.wait_until_read(is_over=lambda: self._is_over)
        if self._is_over:
            raise _StoppedEarly
        introduce(self.app, options, transport, paused_queues=paused.names, shows_banner=self._show_banner)

    def _open(self, transport: Transport) -> None:
        """Connect, however long the broker takes to come up, unless settings or a stop say otherwise.

        Raises:
            BrokerConnectionError: it refuses for good, or settings do not allow to try again.
            _StoppedEarly: a stop came first.
        """
        broker = self.app.settings.broker
        attempts = 0
        while True:
            try:
                transport.open(timeout=broker.connection_timeout)
                return
            except BrokerConnectionError as exc:
                attempts += 1
                is_enough = (
                    broker.connection_max_retries is not None and attempts > broker.connection_max_retries
                )
                if self._is_over:
                    raise _StoppedEarly from exc
                if exc.is_final or not broker.connection_retry_on_startup or is_enough:
                    raise
                logger.warning("no broker yet: %s", exc, extra={"action": "connect_again"})
                self._pause(_RETRY_PAUSE)

    @property
    def _is_over(self) -> bool:
        """A stop was asked for, or has ended the node while a helper thread still waits for the broker."""
        return self._is_stopping or self._stopped.is_set()

    def _pause(self, seconds: float) -> None:
        """In slices: a signal handler may set a flag, but no event, as it may have interrupted a wait for that event."""
        until = SYSTEM_CLOCK.monotonic() + seconds
        while not self._is_over and SYSTEM_CLOCK.monotonic() < until:
            self._stopped.wait(_SLICE)
        if self._is_over:
            raise _StoppedEarly

    def _announce(self, options: WorkerOptions) -> None:
        logger.info("%s ready.", options.node, extra={"action": "ready"})
        self.ready.set()

    def _offer_stop(self, stop: Callable[[float | None], None], is_consuming: Callable[[], bool]) -> None:
        with self._lock:
            self._stop_now, self._is_consuming = stop, is_consuming
            must_stop = self._is_stopping
        if must_stop:
            stop(None)


def _purge(transport: Transport, queue_names: Sequence[str]) -> None:
    for name in queue_names:
        try:
            count = transport.purge_queue(name)
        except UnknownQueue:
            continue  # with the setting topology="none" nobody has made it yet
        logger.warning(
            "%d messages of queue %s were discarded", count, name, extra={"action": "purge", "queue": name}
        )


_PRELOADED = (
    "amqp_tasks.transport.rabbitmq",
    "amqp_tasks.backends.rpc",
    "amqp_tasks.app._execution",
    "amqp_tasks.app._adapter",
    "encodings.idna",  # by which a host's name is looked up
)


def _preload(app: App) -> None:
    """Make what every worker process needs, so that they share its memory; keep the collector off shared objects."""
    for name in _PRELOADED:
        importlib.import_module(name)
    for task in app.tasks.values():
        # What is wrong with a task is told when it is called, and harms no other.
        with contextlib.suppress(Exception):
            task.parameters  # noqa: B018 - kept by the task
    gc.collect()
    gc.freeze()


def _has_terminal() -> bool:
    """Whether a HUP means that the terminal was closed: a worker that went on would go on unseen."""
    return sys.__stdout__ is not None and sys.__stdout__.isatty()


def _never(key: str) -> bool:
    return False


def _nothing() -> None:
    """Nothing need be done."""


def _ignore(value: object) -> None:
    """Nobody needs to be told."""
