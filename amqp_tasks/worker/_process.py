"""One process that runs tasks: engine, pool and the control loop that keeps both in order.

Life: 1. `run` starts the pool; its thread serves it, a second one the control loop; 2. `begin`: it consumes, and knows by then
what the journal said; 3. `stop` drains: what was not started goes back, the rest ends and is settled; 4. at the deadline (or
at `cut`) the connections are closed whatever still runs; 5. `run` returns. The same class serves forked processes and the process that called `Worker.start`.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from amqp_routing import DelayedRetryType, QueueType
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.message import Limits
from amqp_tasks.serialization import content_types
from amqp_tasks.transport import ConsumedQueues, ConsumerEvent, ConsumerState, TopologyMode
from amqp_tasks.worker._breaker import BreakerRules
from amqp_tasks.worker._engine import Engine, EngineParts, EngineRules
from amqp_tasks.worker._guards import Guards
from amqp_tasks.worker._holding import MOST_ROOM
from amqp_tasks.worker._journal import JournalState, Register
from amqp_tasks.worker._limits import OVERDUE_GRACE, soft_signal_kept, swallowed_noticed
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._options import WorkerOptions
from amqp_tasks.worker._paused import PausedQueues
from amqp_tasks.worker._prefetch import Prefetch
from amqp_tasks.worker._rates import RateLimitChanges, RateLimits, token_plans_of
from amqp_tasks.worker._records import Records
from amqp_tasks.worker._revocations import Revocations
from amqp_tasks.worker._revoked_stamps import RevokedStamps
from amqp_tasks.worker._runner import RunRules
from amqp_tasks.worker._template import has_own_handler
from amqp_tasks.worker._termination import termination_in
from amqp_tasks.worker._unacked import consumer_arguments
from amqp_tasks.worker._verdicts import Verdicts

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.message import Envelope, JournalEntry
    from amqp_tasks.settings import Settings
    from amqp_tasks.worker._termination import Termination

__all__ = ("ProcessReports", "WorkerProcess", "resident_kib")

logger = logging.getLogger(__name__)

_TICK = 0.2
_CLOSE_TIMEOUT = 5.0
_CUT_TIMEOUT = 1.0
_DELAYING = frozenset({DelayedRetryType.FAILED, DelayedRetryType.ALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReports:
    """Whom a process tells what. Called from its control thread, except `event`.

    Attributes:
        event: what the consumer does (I/O thread).
        queues: which queues are consumed and which are missing, after each change.
        recycling: it has begun to end itself and wants a successor; the text says why.
        ended: all is closed; True when nothing was left unfinished.
        ran: a task's function has ended, or its hooks have (its slot, which is still marked).
        broken: a thread that the process cannot do without has ended by an error; the text says which. Any thread.
    """

    event: Callable[[ConsumerEvent], None]
    queues: Callable[[ConsumedQueues], None]
    recycling: Callable[[str], None]
    ended: Callable[[bool], None]
    ran: Callable[[], None]
    broken: Callable[[str], None]


class WorkerProcess:
    """See the module's docstring. Its `registers` are what it heeds of the journal without a supervisor.

    Thread safety: `begin`, `learn`, `stop`, `cut` and `loop.call_soon` from any thread; `run` once.
    """

    def __init__(
        self,
        app: App,
        options: WorkerOptions,
        *,
        records: Records,
        verdicts: Verdicts,
        rate_limits: RateLimits,
        reports: ProcessReports,
        loop: Loop,
        owns_transport: bool,
        registers: Sequence[Register] = (),
    ) -> None:
        self._app, self._options, self._reports, self.loop = app, options, reports, loop
        self._owns_transport = owns_transport
        self._pool = options.pool(options.layout.slots)
        self.revocations = Revocations(max_age=app.settings.worker.journal_max_age, clock=SYSTEM_CLOCK)
        self._revoked_stamps = RevokedStamps(max_age=app.settings.worker.journal_max_age, clock=SYSTEM_CLOCK)
        self._paused_queues = PausedQueues(options.queue_names)
        self._journal = JournalState(
            (
                self.revocations,
                self._revoked_stamps,
                self._paused_queues,
                RateLimitChanges(rate_limits),
                *registers,
            ),
        )
        self._records = records
        self._engine = _build_engine(app, options, records, verdicts, rate_limits, self)
        self._queues: ConsumedQueues | None = None  # as told last
        self._tasks_left = options.max_tasks
        self._is_stopping = False
        self._is_ended = False
        self._deadline = 0.0
        self._ended_clean = True
        self.has_ended_a_task = False
        self._end_signal: signal.Signals | None = None

    @property
    def pool(self) -> object:
        """Its pool."""
        return self._pool

    @property
    def is_stopping(self) -> bool:
        """Whether it takes nothing more. Any thread."""
        return self._is_stopping

    def run(self) -> bool:
        """Consume and run tasks until stopped; lends the calling thread to the pool. True: nothing was left unfinished."""
        control = threading.Thread(target=self._control, name="amqp-tasks-control", daemon=True)
        with soft_signal_kept(), swallowed_noticed():
            self._pool.start()
            control.start()
            self._pool.serve()
            control.join()
        return self._ended_clean

    def let_clean_up(self) -> None:
        """Send the signal of a termination, if the task has a handler for it, and wait a while for the task's end.

        All is settled and closed by now. On the control thread.
        """
        number = self._end_signal
        if number is not None and has_own_handler(number):
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            self._engine.wait_for_abandoned(OVERDUE_GRACE)

    def is_revoked(self, envelope: Envelope) -> bool:
        """Whether a task must not be run. Any thread."""
        return self.revocations.has(envelope.id) or self._revoked_stamps.has(envelope)

    def learn(self, entries: Sequence[JournalEntry]) -> None:
        """Take entries of the journal into account, before anything that is asked for later."""
        self.loop.call_soon(lambda: self._learn(entries))

    def begin(self) -> None:
        """Consume."""
        self.loop.call_soon(self._begin)

    def stop(self, timeout: float) -> None:
        """Stop warm, within `timeout` seconds; a shorter second one counts."""
        self.loop.call_soon(lambda: self._begin_stop(timeout))

    def advance_stop(self, timeout: float) -> None:
        """Stop warm; when that was asked before, stop cold."""
        self.loop.call_soon(
            lambda: self._end(_CUT_TIMEOUT) if self._is_stopping else self._begin_stop(timeout)
        )

    def recycle(self, why: str) -> None:
        """Have a successor started and end when the running tasks have."""
        self.loop.call_soon(lambda: self._recycle(why))

    def cut(self) -> None:
        """Stop cold: close the connections now; the broker requeues what is not acked."""
        self.loop.call_soon(lambda: self._end(_CUT_TIMEOUT))

    def fail(self, why: str, error: BaseException | None = None, *, by_running: bool = False) -> None:
        """Say that the process cannot go on, and have what broke it charged. Where it has a supervisor, it ends here.

        Args:
            why: for the log.
            error: what was raised, if anything.
            by_running: what broke it runs still; else it may be what a slot ran last, as well.
        """
        logger.critical(
            "this process cannot go on and ends: %s", why, exc_info=error, extra={"action": "process_broken"}
        )
        if not by_running:
            self._engine.charge_last()
        self._reports.broken(why)

    # The control thread.

    def _control(self) -> None:
        self.loop.call_soon(self._tick)
        try:
            self.loop.run()
        except BaseException as exc:  # noqa: BLE001 - whatever it was: a process without this thread does nothing any more
            self.fail("its control thread has ended by an error", exc)
            self._end(_CUT_TIMEOUT)

    def _learn(self, entries: Sequence[JournalEntry]) -> None:
        for entry in self._journal.learn(entries):
            logger.debug("heeds journal entry: %s", entry.kind, extra={"action": "journal"})
            wish = termination_in(entry)
            if wish is not None and self._engine.terminate(partial(self._is_to_end, wish)):
                self._end_signal = wish.signal
        self._engine.pause_queues(self._paused_queues.names)

    def _is_to_end(self, wish: Termination, envelope: Envelope) -> bool:
        """By what is known now: the wish may be too old, or taken back by a later entry."""
        return wish.is_meant(envelope) and self.is_revoked(envelope)

    def _begin(self) -> None:
        if self._is_stopping or self._is_ended:
            return
        try:
            self._engine.start()
        except Exception as exc:
            # Nothing will ever come: a process that stayed would look alive and do nothing.
            logger.exception("cannot start to consume", extra={"action": "start_failed"})
            self._reports.event(ConsumerEvent(state=ConsumerState.FAILED, epoch=0, error=exc))
            self._end(_CUT_TIMEOUT)

    def _tick(self) -> None:
        if self._is_ended:
            return
        # First: what fails now is no reason to give no more signs.
        self.loop.call_later(_TICK, self._tick)
        self._records.give_sign(SYSTEM_CLOCK.monotonic())
        self._engine.tick()
        self._tell_queues()
        self._end_if_due()

    def _tell_queues(self) -> None:
        now = self._engine.queues
        if now is not None and now != self._queues:
            self._queues = now
            self._reports.queues(now)

    def _begin_stop(self, timeout: float) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        self._deadline = min(deadline, self._deadline) if self._is_stopping else deadline
        self._is_stopping = True
        self._engine.drain()
        self._end_if_due()

    def _recycle(self, why: str) -> None:
        if not self._is_stopping:
            logger.info("process is replaced: %s", why, extra={"action": "recycle"})
            self._reports.recycling(why)
            # Its tasks take what they take; whoever stops the node sets a shorter deadline.
            self._begin_stop(float("inf"))

    def _end_if_due(self) -> None:
        if self._is_ended or not self._is_stopping:
            return
        if self._engine.is_idle:
            self._end(_CLOSE_TIMEOUT)
        elif SYSTEM_CLOCK.monotonic() >= self._deadline:
            self._end(_CUT_TIMEOUT)

    def _end(self, timeout: float) -> None:
        """Close everything, in the order consumer, publisher, pool."""
        if self._is_ended:
            return
        self._is_ended = True
        self._records.give_sign(0.0)  # what is left has a time of its own
        self._ended_clean = False
        try:
            self._close_connections(timeout)
        finally:
            # Whatever failed: a process that stays is worse than one whose deliveries go back.
            self._pool.stop()
            self.loop.stop()
            self._reports.ended(self._ended_clean)

    def _close_connections(self, timeout: float) -> None:
        self._engine.drain()
        is_idle = self._engine.is_idle
        self._engine.close(timeout=timeout)
        if self._owns_transport:
            self._app.transport.close(timeout=timeout)
        self._ended_clean = is_idle

    # Called by the engine: slots and I/O thread.

    def on_event(self, event: ConsumerEvent) -> None:
        """What the consumer does."""
        if event.is_broken:
            self.fail("its I/O thread has ended by an error")
        elif event.state is ConsumerState.FAILED:
            logger.error("cannot consume: %s", event.error, extra={"action": "consumer_failed"})
        self._reports.event(event)

    def on_done(self, is_short_of_memory: bool) -> bool:
        """After each task: True when the process has done enough, or has grown too large, and must start nothing more."""
        why = "a task ended with MemoryError" if is_short_of_memory else self._why_recycle()
        if why and self._options.pool.capabilities.recycle and self._options.layout.processes:
            self.loop.call_soon(lambda: self._recycle(why))
            return True
        return False

    def on_end(self, why: str) -> None:
        """A task is ended by us: end soon, whatever it still does. On the control thread."""
        self.has_ended_a_task = True
        if not self._is_stopping:
            self._reports.recycling(why)
        self._begin_stop(OVERDUE_GRACE)

    def on_settled(self) -> None:
        """After each settlement: was that the last one of a stop?"""
        if self._is_stopping:
            self.loop.call_soon(self._end_if_due)

    def _why_recycle(self) -> str:
        if self._tasks_left is not None:
            self._tasks_left -= 1
            if self._tasks_left <= 0:
                return f"it has run {self._options.max_tasks} tasks"
        limit = self._options.max_memory_kib
        if limit is not None and (resident := resident_kib()) > limit:
            return f"it holds {resident} KiB of {limit} KiB"
        return ""


def resident_kib() -> int:
    """Resident memory of this process; where the system does not tell, the most it has ever been."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
    return pages * resource.getpagesize() // 1024


def _build_engine(
    app: App,
    options: WorkerOptions,
    records: Records,
    verdicts: Verdicts,
    rate_limits: RateLimits,
    process: WorkerProcess,
) -> Engine:
    settings = app.settings
    prefetch = Prefetch(
        slots=options.layout.slots,
        maximum=settings.worker.prefetch_max,
        multiplier=options.prefetch_multiplier,
    )
    in_flight = max(settings.worker.prefetch_max, prefetch.value) * len(options.queue_names) + MOST_ROOM
    parts = EngineParts(
        app=app,
        transport=app.transport,
        backend=app.backend,
        pool=process._pool,
        prefetch=prefetch,
        guards=Guards(
            tasks=app.tasks,
            accept=content_types(settings.app.accept_content),
            max_message_bytes=settings.app.max_message_bytes,
            now=SYSTEM_CLOCK.now,
            is_revoked=process.is_revoked,
            keys=app.transport.keys,
        ),
        run_rules=run_rules(settings, options),
        records=records,
        verdicts=verdicts,
        rate_limits=rate_limits,
        token_plans=token_plans_of(app),
        clock=SYSTEM_CLOCK,
        on_event=process.on_event,
        on_ran=process._reports.ran,
        on_done=process.on_done,
        on_end=process.on_end,
        on_settled=process.on_settled,
        call_later=process.loop.call_later,
    )
    rules = EngineRules(
        queue_names=options.queue_names,
        topology=options.topology if TopologyMode(settings.app.topology) is TopologyMode.DECLARE else None,
        weights=settings.worker.queue_weights,
        crash_limit=settings.task.crash_limit,
        dead_letter_queues=settings.task.dead_letter_queues,
        consumer_arguments=consumer_arguments(app, options),
        streams=frozenset(queue.name for queue in options.topology.queues if queue.type is QueueType.STREAM),
        in_flight=in_flight,
        breaker=BreakerRules(
            ratio=settings.worker.breaker_ratio,
            runs=settings.worker.breaker_runs,
            pause=settings.worker.breaker_pause,
        ),
    )
    return Engine(parts, rules)


def run_rules(settings: Settings, options: WorkerOptions) -> RunRules:
    """The settings that a run depends on."""
    task = settings.task
    return RunRules(
        hostname=options.node,
        accept=tuple(settings.app.accept_content),
        limits=Limits(max_message_bytes=settings.app.max_message_bytes),
        acks_late=task.acks_late,
        ignore_result=task.ignore_result,
        acks_on_failure=task.acks_on_failure,
        acks_on_timeout=task.acks_on_timeout,
        store_errors_even_if_ignored=task.store_errors_even_if_ignored,
        track_started=task.track_started,
        result_extended=settings.result.extended,
        has_backend=settings.result.backend is not None,
        time_limit=options.time_limit,
        soft_time_limit=options.soft_time_limit,
        can_end_a_task=options.pool.capabilities.end_a_task,
        requeue_limit=task.requeue_limit,
        delaying_queues=frozenset(
            queue.name for queue in options.topology.queues if queue.delayed_retry_type in _DELAYING
        ),
    )
