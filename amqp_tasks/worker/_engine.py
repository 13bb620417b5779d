"""The consuming half of one process: deliveries in, settlements out.

Life: 1. made with its pool; 2. `start` consumes; 3. `tick` is called a few times a second by the control thread; 4. `drain`
takes nothing more and hands back what was not started; 5. `is_idle` once all that was begun is settled; 6. `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import WATCH_TASK, DeadLetterReason, printable
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement
from amqp_tasks.worker._accounts import (
    UNWANTED,
    as_waiter_sees,
    crash_refusal,
    dead_letter_of,
    failure_refusal,
    refusal_record,
)
from amqp_tasks.worker._again import sent_round
from amqp_tasks.worker._breaker import BreakerRules, Breakers
from amqp_tasks.worker._dispatcher import Dispatcher
from amqp_tasks.worker._early import Early
from amqp_tasks.worker._ends import Ends
from amqp_tasks.worker._follow_ups import FollowUps
from amqp_tasks.worker._guards import Guards
from amqp_tasks.worker._holding import Holding
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._limits import Timekeeper
from amqp_tasks.worker._once import Once
from amqp_tasks.worker._pacing import Pacing
from amqp_tasks.worker._prefetch import PrefetchTotal
from amqp_tasks.worker._redeliveries import Redeliveries
from amqp_tasks.worker._runner import Runner, RunRules
from amqp_tasks.worker._runs import Runs
from amqp_tasks.worker._settler import Settler, SettlerParts
from amqp_tasks.worker._tokens import Tokens

if TYPE_CHECKING:
    from amqp_routing import Topology
    from amqp_tasks.app import App
    from amqp_tasks.backend import ResultBackend
    from amqp_tasks.clock import Clock
    from amqp_tasks.message import Envelope, OutgoingMessage, ResultRecord, TokenPlan
    from amqp_tasks.transport import ConsumedQueues, Consumer, ConsumerEvent, Delivery, Transport
    from amqp_tasks.worker._prefetch import Prefetch
    from amqp_tasks.worker._rates import RateLimits
    from amqp_tasks.worker._records import Records
    from amqp_tasks.worker._verdicts import Verdict, Verdicts
    from amqp_tasks.worker.pool import Pool

__all__ = ("Engine", "EngineParts", "EngineRules")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """The settings of a process.

    Attributes:
        queue_names: what is consumed.
        topology: declared again after a reconnect if it is gone; None leaves that out.
        weights: order of queues within the ready buffer.
        crash_limit: `task_crash_limit`.
        dead_letter_queues: whether refused messages go to `<queue>.dead`; else the broker drops them.
        consumer_arguments: by queue.
        streams: names of the queues that are streams.
        in_flight: how many acks a broken connection can lose.
        breaker: when a queue is left alone because its tasks fail.
    """

    queue_names: tuple[str, ...]
    topology: Topology | None
    weights: Mapping[str, float]
    crash_limit: int
    dead_letter_queues: bool
    consumer_arguments: Mapping[str, Mapping[str, Any]]
    streams: frozenset[str]
    in_flight: int
    breaker: BreakerRules


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What an engine is made of.

    Attributes:
        on_event: what the consumer does, on the I/O thread.
        on_ran: called in its slot when a task's function has ended, and when its hooks have, before its outcome goes anywhere.
        on_done: called after each task, in its slot's thread, with True when it left the process short of memory;
            returns True when the process must start nothing more.
        on_end: called when a task is ended, with the reason: the process must end.
        on_settled: called after each settlement.
        call_later: runs something on the control thread after some seconds.
    """

    app: App
    transport: Transport
    backend: ResultBackend | None
    pool: Pool
    prefetch: Prefetch
    guards: Guards
    run_rules: RunRules
    records: Records
    verdicts: Verdicts
    rate_limits: RateLimits
    token_plans: Sequence[TokenPlan]
    clock: Clock
    on_event: Callable[[ConsumerEvent], None]
    on_ran: Callable[[], None]
    on_done: Callable[[bool], bool]
    on_end: Callable[[str], None]
    on_settled: Callable[[], None]
    call_later: Callable[[float, Callable[[], None]], object]


class Engine:
    """See the module's docstring. Thread safety: callbacks come from the I/O thread and the slots."""

    def __init__(self, parts: EngineParts, rules: EngineRules) -> None:
        self._parts, self._rules = parts, rules
        self._ledger = Ledger(in_flight=rules.in_flight)
        self._settler = Settler(
            SettlerParts(
                transport=parts.transport,
                backend=parts.backend,
                ledger=self._ledger,
                verdicts=parts.verdicts,
                call_later=parts.call_later,
                on_settled=parts.on_settled,
                count=parts.transport.tally.add,
                keep=self._keep_failure,
                end_instead=self._end_instead,
            )
        )
        self._holding = Holding(
            ledger=self._ledger, effects=self, call_later=parts.call_later, clock=parts.clock
        )
        self._tokens = Tokens(
            parts.token_plans,
            transport=parts.transport,
            holding=self._holding,
            effects=self,
            clock=parts.clock,
        )
        self._pacing = Pacing(
            limits=parts.rate_limits,
            tokens=self._tokens,
            holding=self._holding,
            effects=self,
            clock=parts.clock,
        )
        self._follow_ups = FollowUps(
            parts.app, parts.call_later, accept=parts.run_rules.accept, limits=parts.run_rules.limits,
            hostname=parts.run_rules.hostname, has_dead_letters=rules.dead_letter_queues,
        )  # fmt: skip
        self._ends = Ends(parts.app.events, parts.run_rules.hostname, parts.call_later)
        self._once = Once(
            parts.app.idempotency_store, seconds=parts.app.settings.task.idempotency_expires,
            is_for_all=parts.guards.keys is not None,
        )  # fmt: skip
        self._runs = Runs()
        self._breakers = Breakers(rules.breaker, call_later=parts.call_later, on_change=self._follow_breakers)
        self._runner = Runner(
            rules=parts.run_rules,
            settler=self._settler,
            began=self._pacing.began,
            records=parts.records,
            timekeeper=Timekeeper(
                clock=parts.clock,
                call_later=parts.call_later,
                records=parts.records,
                on_overdue=self._end_overdue,
                runs=self._runs,
            ),
            runs=self._runs,
            once=self._once,
            check=parts.guards.check_start,
            is_revoked=parts.guards.is_revoked,
            follow_ups=self._follow_ups,
            ends=self._ends,
            refuse=self._refuse_open,
            keep=self._keep_failure,
            judge=self._breakers.observe,
            on_ran=parts.on_ran,
            on_done=self._done,
            clock=parts.clock,
        )
        self._dispatcher = Dispatcher(
            pool=parts.pool,
            prefetch=parts.prefetch,
            weights=rules.weights,
            effects=self,
            gate=self._pacing.start,
            clock=parts.clock,
        )
        self._redeliveries = Redeliveries(
            ledger=self._ledger,
            verdicts=parts.verdicts,
            effects=self,
            crash_limit=rules.crash_limit,
            clock=parts.clock,
        )
        self._early = Early(holding=self._holding, effects=self, clock=parts.clock)
        # What the slots need, and room for what is held beside them.
        self._prefetch = PrefetchTotal(
            (lambda: parts.prefetch.value, lambda: self._redeliveries.held, lambda: self._holding.room),
            order=self._order_prefetch,
        )
        self._paused_queues: frozenset[str] = frozenset()
        self._consumer: Consumer | None = None
        # The transport may call back from its own thread before `consume` has returned.
        self._starting = threading.Lock()

    def start(self) -> None:
        """Consume; returns at once."""
        with self._starting:
            consumer = self._parts.transport.consume(
                self._rules.queue_names,
                ConsumerOptions(
                    prefetch=self._prefetch.value,
                    paused_queues=self._paused_queues,
                    arguments=self._rules.consumer_arguments,
                    streams=self._rules.streams,
                ),
                on_deliveries=self._on_deliveries,
                on_event=self._on_event,
                declare=self._rules.topology,
            )
            self._consumer = self._settler.consumer = consumer

    def pause_queues(self, queue_names: frozenset[str]) -> None:
        """Run nothing more of these queues and hand back what has not begun, until another call says otherwise. By the thread
        that calls `start`, before or after it."""
        if queue_names != self._paused_queues:
            self._paused_queues = queue_names
            self._pause_and_resume()

    def _follow_breakers(self) -> None:
        # Back to a delivery for each slot: a queue that is tried again should not give many only to get them back.
        self._dispatcher.restart_prefetch()
        self._pause_and_resume()

    def _pause_and_resume(self) -> None:
        queue_names = self._paused_queues | self._breakers.queue_names
        if self._consumer is not None:
            self._consumer.pause_queues(queue_names)
        # After that, or the broker would send them right back.
        self._dispatcher.pause_queues(queue_names)
        self._holding.hand_back(lambda job: job.delivery.queue_name in queue_names)

    @property
    def queues(self) -> ConsumedQueues | None:
        """What it has of what it wants to consume; None before it has begun. Any thread."""
        return self._consumer.queues if self._consumer is not None else None

    def tick(self) -> None:
        """Hand back what waits behind long tasks, ask again about what is held."""
        self._dispatcher.tick()
        self._redeliveries.tick()
        self._holding.tick()
        self._tokens.tick()

    def drain(self) -> None:
        """Take nothing more; idempotent."""
        self._breakers.close()
        self._dispatcher.close()
        self._redeliveries.close()
        self._holding.close()

    @property
    def is_idle(self) -> bool:
        """Nothing runs and everything begun is settled."""
        is_waiting = self._redeliveries.count or self._holding.count
        return not self._dispatcher.running and not self._ledger.count and not is_waiting

    def charge_last(self) -> None:
        """Have the end of this process charged to what its slots run, or ran last and has no outcome yet. Any thread."""
        self._parts.records.reclaim(self._ledger.is_open)

    def close(self, *, timeout: float) -> None:
        """Flush settlements and close the consuming connection; what is not settled goes back to the broker. All within `timeout`."""
        deadline = time.monotonic() + timeout
        # What is under way there may hang, at the broker or in users' code. Acks that are not flushed are tasks that run again, so
        # half of the time is kept for them.
        half = deadline - timeout / 2
        for part in (self._follow_ups, self._once, self._tokens):
            part.close(timeout=seconds_left(half))
        if self._consumer is not None:
            self._consumer.close(timeout=seconds_left(deadline))

    # From the transport, on the I/O thread.

    def _on_event(self, event: ConsumerEvent) -> None:
        # One that has failed gives up its connection, and all that came by it.
        if event.state in {ConsumerState.LOST, ConsumerState.FAILED}:
            still_open, maybe_lost = self._ledger.lose(event.epoch)
            for job in self._dispatcher.drop(self._is_lost):
                if job.turn:
                    self._pacing.ended(job)
            self._redeliveries.drop(self._is_lost)
            self._holding.drop(self._is_lost)
            self._tell(still_open, maybe_lost)
        elif event.state is ConsumerState.CANCELLED and event.queue_name is not None:
            self._tell(*self._ledger.take_back(event.queue_name))
        self._parts.on_event(event)

    def _tell(self, still_open: Sequence[str], maybe_lost: Sequence[str]) -> None:
        """Let the supervisor know what may be delivered again and must not be run."""
        if still_open:
            self._parts.verdicts.tell_open(still_open)
        # What has ended meanwhile has said so, too early to be understood: it would be held to be open for ever.
        ended = [key for key in still_open if not self._ledger.is_open(key)]
        over = dict.fromkeys((*maybe_lost, *ended), False)
        refused = [key for key in over if self._ledger.is_refused(key)]
        if refused:
            self._parts.verdicts.tell_refused(refused)
        if finished := [key for key in over if key not in refused]:
            self._parts.verdicts.tell_finished(finished)

    def _is_lost(self, job: Job) -> bool:
        return self._ledger.is_lost(job.delivery)

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if self._consumer is None:
            with self._starting:
                pass
        self.admit([job for delivery in deliveries if (job := self._check(delivery)) is not None])

    def admit(self, jobs: Sequence[Job]) -> None:
        """See `EarlyEffects.admit`."""
        fresh: list[Job] = []
        redelivered: list[Job] = []
        is_pacing = self._pacing.is_on
        for job in jobs:
            # One that has waited under a rate limit may be a redelivery that was sent round: its crashes still count.
            is_known = job.delivery.redelivered or (is_pacing and self._pacing.has_waited(job))
            (redelivered if is_known else fresh).append(job)
        if fresh:
            self.proceed(fresh)
        if redelivered:
            self._redeliveries.take(redelivered)

    def _check(self, delivery: Delivery) -> Job | None:
        """The job of a delivery that passes the guards; None when it was refused, or came too early."""
        guards, envelope = self._parts.guards, None
        try:
            guards.check_size(delivery)
            guards.check_signature(delivery)
            envelope = guards.read(delivery)
            if envelope.task == WATCH_TASK:
                self._watch(Job(delivery, envelope))
                return None
            task = guards.find_task(envelope)
            # With a key in a slot, where others are let have it.
            if not delivery.redelivered and not self._once.heeds(task, envelope):
                guards.check_start(envelope)
        except MalformedMessage as exc:
            self._refuse(Job(delivery, envelope), exc)
            return None
        except Exception as exc:
            # No message may end the I/O thread: what even the guards stumble over is set aside as well.
            logger.exception("unexpected error in the guards", extra={"action": "guard_error"})
            self._refuse(Job(delivery), MalformedMessage(DeadLetterReason.BAD_HEADERS, repr(exc)))
            return None
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "Task %s[%s] received", printable(envelope.shadow or task.name), printable(envelope.id),
                extra={"action": "received", "task_id": envelope.id, "task_name": envelope.task},
            )  # fmt: skip
        job = Job(delivery, envelope, task, self._runner.run)
        return None if envelope.eta is not None and self._early.keeps(job, envelope.eta) else job

    def _watch(self, job: Job) -> None:
        """Not for a slot: a look at a join, which others do as well as this process."""
        job.key = ""  # when it comes again it is no duplicate
        self._ledger.open(job)
        settle = partial(self._settler.acknowledge, job)
        self._follow_ups.watch(job, settle, partial(self._refuse_alone, job))

    def _refuse(self, job: Job, error: MalformedMessage) -> None:
        self._ledger.open(job)
        self._refuse_open(job, error)

    def _refuse_open(self, job: Job, error: MalformedMessage) -> None:
        """Tell the rest of its workflow, if it is part of one, that it will not run; then refuse it."""
        refuse = partial(self._refuse_alone, job, error)
        if job.envelope is None:
            refuse()
        else:
            seen = as_waiter_sees(error, job.envelope)
            self._follow_ups.after_refusal(job, seen, refuse)

    def _refuse_alone(self, job: Job, error: MalformedMessage) -> None:
        """Set a message aside with its reason, and tell who waits for it."""
        rules = self._parts.run_rules
        now = self._parts.clock.now()
        record = refusal_record(job, error, now=now, hostname=rules.hostname)
        is_unwanted = error.reason in UNWANTED
        if is_unwanted:
            job.end = "expired" if error.reason == DeadLetterReason.EXPIRED else "revoked"
        if error.reason != DeadLetterReason.REJECTED:  # that is the task's own wish, and told as its outcome
            _log_refusal(job, error, is_unwanted=is_unwanted)
        if is_unwanted or not self._rules.dead_letter_queues:
            if job.envelope is not None:
                self._ends.of_refusal(job.envelope, error)
            self._finish_refusal(job, record, is_unwanted=is_unwanted)
            return
        self._set_aside(job, error, record)

    def _keep_failure(
        self, job: Job, error: Exception, traceback: str | None, record: ResultRecord | None = None
    ) -> None:
        """Set a task aside that failed: its failure goes to nobody else, or it may be resumed or put back and who waits is told."""
        assert job.task is not None
        if self._rules.dead_letter_queues:
            self._set_aside(job, failure_refusal(error), record, traceback)
            return
        if job.envelope is not None:
            self._ends.of_failure(job.envelope, error)
        if self._parts.run_rules.keeps(job.task, error):
            self._settler.drop(job, record)
        elif record is not None:
            self._settler.store(job, record)
        else:
            self._settler.acknowledge(job)

    def _end_instead(self, job: Job, error: Exception, record: ResultRecord) -> None:
        """Its key and what follows it were left to its next run: first others may have the one, and the other is told."""
        task, envelope = job.task, job.envelope
        assert task is not None
        assert envelope is not None
        keep = partial(self._keep_failure, job, error, None, record)
        if not self._once.heeds(task, envelope):
            self._follow_ups.after_refusal(job, error, keep)
            return
        self._once.give_up_aside(task, envelope, partial(self._follow_ups.after_refusal, job, error, keep))

    def _set_aside(
        self, job: Job, error: MalformedMessage, record: ResultRecord | None, traceback: str | None = None
    ) -> None:
        now, hostname = self._parts.clock.now(), self._parts.run_rules.hostname
        if job.envelope is not None:
            self._ends.of_death(job.envelope, job.delivery.queue_name, error)
        try:
            message = dead_letter_of(job, error, now=now, hostname=hostname, traceback=traceback)
        except Exception:
            # Then the queue's own dead-letter exchange gets it, as it is.
            logger.exception(
                "a message cannot be rewritten as a dead letter", extra={"action": "dead_letter"}
            )
            self._settler.drop(job, record)
        else:
            self._settler.set_aside(job, message, record)

    def _finish_refusal(self, job: Job, record: ResultRecord | None, *, is_unwanted: bool) -> None:
        if not is_unwanted:
            self._settler.drop(job, record)
        elif record is not None:
            self._settler.store(job, record)
        else:
            self._settler.acknowledge(job)

    def _done(self, job: Job, duration: float, is_short_of_memory: bool) -> None:
        if job.turn:
            self._pacing.ended(job)
        # Asked before the slot is free, or it would be filled once more.
        if self._parts.on_done(is_short_of_memory):
            self._dispatcher.close()
        self._dispatcher.done(job, duration)

    def _end_overdue(self, job: Job) -> None:
        """Answer for a task that its slot will not answer for any more. On the control thread."""
        self._parts.on_end("a task has exceeded its time limit")
        self._runner.time_out(job, tells=True)
        self._dispatcher.done(job, 0.0)

    def terminate(self, is_meant: Callable[[Envelope], bool]) -> bool:
        """End those of the meant tasks that run here; whether there was one. On the control thread."""
        is_ended = False
        for job in self._runs.find(is_meant):
            if not self._parts.run_rules.can_end_a_task:
                logger.warning(
                    "task %s is to be terminated, which only the pool 'prefork' can do: it goes on", job.name,
                    extra={"action": "terminate"},
                )  # fmt: skip
            elif self._runs.take(job):
                is_ended = True
                self._parts.on_end("a task is terminated")
                self._runner.revoke_running(job)
                self._dispatcher.done(job, 0.0)
        return is_ended

    def wait_for_abandoned(self, timeout: float) -> None:
        """Give a slot whose run is answered for already so many seconds to come to its end."""
        self._runs.abandoned.wait(timeout)

    # What dispatcher and redeliveries ask for.

    def begin(self, job: Job) -> None:
        """See `Effects.begin`."""
        self._ledger.open(job)

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """See `Effects.hand_back`."""
        for job in jobs:
            if job.turn:
                self._pacing.ended(job)
            self._settler.hand_back(job)

    def set_flow(self, is_open: bool) -> None:
        """See `Effects.set_flow`."""
        if self._consumer is not None:
            (self._consumer.resume if is_open else self._consumer.pause)()

    def resize(self) -> None:
        """See `Effects.resize`, `RedeliveryEffects.resize` and `HoldingEffects.resize`."""
        self._prefetch.update()

    def _order_prefetch(self, prefetch: int) -> None:
        if self._consumer is not None:
            self._consumer.set_prefetch(prefetch)

    def let_go(self, stale: Delivery) -> None:
        """See `RedeliveryEffects.let_go`."""
        self._settler.consumer.settle(stale, Settlement.ACK)

    def proceed(self, jobs: Sequence[Job]) -> None:
        """See `RedeliveryEffects.proceed`."""
        self.run_soon(self._pacing.sort(jobs))

    def run_soon(self, jobs: Sequence[Job]) -> None:
        """See `PacingEffects.run_soon`."""
        self._dispatcher.take(jobs)

    def put_off(self, job: Job, seconds: float) -> None:
        """See `Effects.put_off`."""
        self._pacing.put_off(job, seconds)

    def acknowledge_duplicate(self, job: Job) -> None:
        """See `RedeliveryEffects.acknowledge_duplicate`."""
        logger.info("task %s had finished; its redelivery is acked", job.name, extra={"action": "duplicate"})
        self._ledger.open(job)
        job.end = ""
        self._settler.acknowledge(job)

    def refuse_duplicate(self, job: Job) -> None:
        """See `RedeliveryEffects.refuse_duplicate`."""
        logger.info("task %s had been refused; so is its redelivery", job.name, extra={"action": "duplicate"})
        self._ledger.open(job)
        self._settler.drop(job, None)

    def give_up(self, job: Job, verdict: Verdict) -> None:
        """See `RedeliveryEffects.give_up`."""
        task_id = job.envelope.id if job.envelope is not None else ""
        error = crash_refusal(task_id, verdict.crashes, verdict.cause)
        if self._runner.needs_slot(job):
            # Once more means that the last words themselves ended the process.
            is_silent = verdict.crashes > self._rules.crash_limit
            self._dispatcher.take([job.instead(partial(self._runner.bury, error, is_silent=is_silent))])
        else:
            self._refuse(job, error)

    def time_out(self, job: Job) -> None:
        """See `RedeliveryEffects.time_out`."""
        if job.crashes < self._rules.crash_limit and self._runner.needs_slot(job):
            self._dispatcher.take([job.instead(self._runner.bury_overdue)])
            return
        self._ledger.open(job)
        self._runner.time_out(job)

    def send_round(self, job: Job, seconds: float) -> None:
        """See `EarlyEffects.send_round`."""
        self._publish_again(job, sent_round(job, seconds), is_same_run=True)

    def take_turn_later(self, job: Job, seconds: int) -> None:
        """See `PacingEffects.take_turn_later`."""
        self._publish_again(job, sent_round(job, seconds, is_paced=True), is_same_run=job.crashes > 0)

    def _publish_again(self, job: Job, message: OutgoingMessage, *, is_same_run: bool) -> None:
        """Publish a copy, then ack this one. `is_same_run`: the copy goes by the same key."""
        if is_same_run:
            job.key = ""  # when it comes again it is not a duplicate of a task that has ended here
        self._ledger.open(job)
        self._settler.forward(job, message, None)


def _log_refusal(job: Job, error: MalformedMessage, *, is_unwanted: bool) -> None:
    envelope = job.envelope
    logger.log(
        logging.INFO if is_unwanted else logging.ERROR,
        "message %s of queue %s is not run: %s",
        printable(envelope.id if envelope is not None else error.task_id or "without a readable id"),
        printable(job.delivery.queue_name),
        printable(f"{error.reason}: {error.detail}", 1024),
        extra={"action": "refused", "reason": str(error.reason), "queue": job.delivery.queue_name},
    )
