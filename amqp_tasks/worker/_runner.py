"""Running one job in its slot: decode, run, record the outcome. Whatever happens, the job is settled and the slot freed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.app import DeliveryInfo, Request
from amqp_tasks.app._execution import Outcome, execute, failed, format_traceback, request_from
from amqp_tasks.app._hooks import run_hooks
from amqp_tasks.app._request import UnreadRequest
from amqp_tasks.errors import MalformedMessage, Reject, Replaced, Retry, TaskPredicate, TimeLimitExceeded
from amqp_tasks.message import (
    DeadLetterReason,
    Envelope,
    Limits,
    OutgoingMessage,
    Payload,
    ResultRecord,
    State,
    bounded_repr,
    printable,
    read_payload,
)
from amqp_tasks.worker._accounts import (
    as_waiter_sees,
    error_text,
    outcome_record,
    requeue_refusal,
    retry_record,
    started_record,
)
from amqp_tasks.worker._again import message_of, requeued
from amqp_tasks.worker._ends import Ends
from amqp_tasks.worker._exits import exit_if_forked
from amqp_tasks.worker._follow_ups import FollowUps
from amqp_tasks.worker._guards import check_chord
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._last_words import LastWords
from amqp_tasks.worker._limits import Overdue, Timekeeper, Watch
from amqp_tasks.worker._once import Once
from amqp_tasks.worker._records import Records
from amqp_tasks.worker._run_log import log_outcome, log_terminated
from amqp_tasks.worker._runs import Runs
from amqp_tasks.worker._sending import Closing
from amqp_tasks.worker._settler import Settler

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.clock import Clock

__all__ = ("RunRules", "Runner")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """The settings that a run depends on; a task's own options win over them."""

    hostname: str
    accept: tuple[str, ...]
    limits: Limits
    acks_late: bool
    acks_on_failure: bool
    acks_on_timeout: bool
    ignore_result: bool
    store_errors_even_if_ignored: bool
    track_started: bool
    result_extended: bool
    has_backend: bool
    time_limit: float | None
    soft_time_limit: float | None
    can_end_a_task: bool
    requeue_limit: int
    delaying_queues: frozenset[str]
    """Those in which the broker lets a rejected message wait."""

    def is_acked_late(self, task: Task[..., Any]) -> bool:
        """Whether the ack comes after the run."""
        return self.acks_late if task.acks_late is None else task.acks_late

    def keeps(self, task: Task[..., Any], error: Exception) -> bool:
        """Whether the message of a failed task is kept, although its failure is told."""
        if isinstance(error, TimeLimitExceeded):
            acks = self.acks_on_timeout if task.acks_on_timeout is None else task.acks_on_timeout
        else:
            acks = self.acks_on_failure if task.acks_on_failure is None else task.acks_on_failure
        return not acks

    def is_tracked(self, task: Task[..., Any]) -> bool:
        """Whether STARTED is sent."""
        return self.track_started if task.track_started is None else task.track_started

    def soft_limit(self, task: Task[..., Any], envelope: Envelope) -> float | None:
        """Seconds after which it is interrupted: the call's word first, then the task's, then the worker's."""
        return envelope.soft_time_limit or task.soft_time_limit or self.soft_time_limit

    def hard_limit(self, task: Task[..., Any], envelope: Envelope) -> float | None:
        """Seconds after which its process is ended; likewise."""
        return envelope.time_limit or task.time_limit or self.time_limit

    def is_stored(self, task: Task[..., Any], envelope: Envelope, *, is_failure: bool) -> bool:
        """Whether somebody gets the outcome: the caller's word first, then the task's, then the setting."""
        if not envelope.reply_to or not self.has_backend:
            return False
        is_ignored = envelope.ignore_result
        if is_ignored is None:
            is_ignored = self.ignore_result if task.ignore_result is None else task.ignore_result
        if not is_ignored:
            return True
        if not is_failure:
            return False
        own = task.store_errors_even_if_ignored
        return self.store_errors_even_if_ignored if own is None else own


class Runner:
    """Thread safety: each slot's thread calls `run` for its own job.

    Args:
        rules: see `RunRules`.
        settler: takes the outcomes.
        began: told of a job of a task with a rate limit, when it begins.
        records: says which task runs in which slot.
        timekeeper: sees to time limits.
        runs: who answers for what.
        once: which of them have been done.
        check: whether it may start: raises for what is revoked, or has expired.
        is_revoked: whether a task is revoked; for one that runs and asks.
        refuse: what to do with a body that cannot be read, arguments that do not fit, or what may not start.
        follow_ups: makes and sends what follows a task in a workflow.
        ends: tells those who follow a task how it has ended.
        keep: what to do with a failure that goes to nobody, or is to be kept all the same; with what is told to whoever waits.
        judge: told of how each run has ended.
        on_ran: see `EngineParts`.
        on_done: called after each job, with its seconds and whether it left the process short of memory.
        clock: time.
    """

    def __init__(
        self,
        *,
        rules: RunRules,
        settler: Settler,
        began: Callable[[Job], None],
        records: Records,
        timekeeper: Timekeeper,
        runs: Runs,
        once: Once,
        check: Callable[[Envelope], None],
        is_revoked: Callable[[Envelope], bool],
        follow_ups: FollowUps,
        ends: Ends,
        refuse: Callable[[Job, MalformedMessage], None],
        keep: Callable[[Job, Exception, str | None, ResultRecord | None], None],
        judge: Callable[[str, Outcome], None],
        on_ran: Callable[[], None],
        on_done: Callable[[Job, float, bool], None],
        clock: Clock,
    ) -> None:
        self._rules, self._settler, self._records = rules, settler, records
        self._refuse, self._keep, self._on_done, self._clock = refuse, keep, on_done, clock
        self._timekeeper, self._runs, self._check, self._began = timekeeper, runs, check, began
        self._follow_ups, self._ends, self._once, self._judge = follow_ups, ends, once, judge
        self._is_revoked, self._on_ran = is_revoked, on_ran
        self._warned: set[str] = set()
        self._pid = os.getpid()
        self._came_back = partial(exit_if_forked, self._pid)
        self._last_words = LastWords(
            request_of=self._request, accept=rules.accept, limits=rules.limits, came_back=self._came_back
        )

    def run(self, job: Job, slot: int) -> None:
        """Run it and settle it; raises nothing. Where the worker closes first it stays open, and is delivered again."""
        started = self._clock.monotonic()
        is_short_of_memory = is_given_up = False
        try:
            is_short_of_memory = self._attempt(job, slot)
        except Overdue:
            is_given_up = True
            self._runs.abandoned.set()
        except Closing:
            is_given_up = True
        except MalformedMessage as exc:
            self._give_up_key(job)
            self._refuse(job, exc)
        except BaseException as exc:
            # Not the task's: `execute` keeps those. What cannot be handled is set aside, not tried for ever; a serializer that
            # exits would end the slot, and each process that gets the message again.
            logger.exception("unexpected error around task %s", job.name, extra={"action": "runner_error"})
            error = MalformedMessage(
                DeadLetterReason.FAILED, f"unexpected error in the worker: {bounded_repr(exc)}"
            )
            error.__cause__ = exc
            self._give_up_key(job)
            self._refuse(job, error)
        finally:
            if not is_given_up:
                self._on_done(job, self._clock.monotonic() - started, is_short_of_memory)

    def revoke_running(self, job: Job) -> None:
        """Answer for a job whose run is terminated and will not answer itself; any thread."""
        assert job.envelope is not None
        log_terminated(job.envelope)
        self._give_up_key(job)
        self._refuse(job, MalformedMessage(DeadLetterReason.REVOKED, "terminated", task_id=job.envelope.id))

    def time_out(self, job: Job, *, tells: bool = False) -> None:
        """Answer for a job whose run has passed its hard limit and will not answer itself; any thread.

        Args:
            job: what ran.
            tells: it ran in this process, where waiting harms nobody: give its `on_dead` some time first.
        """
        task, envelope = job.task, job.envelope
        assert task is not None
        assert envelope is not None
        error = TimeLimitExceeded(self._rules.hard_limit(task, envelope))
        if tells:
            self._last_words.say_in_time(job, error)
        request = self._request(job, envelope)
        outcome = Outcome(state=State.FAILURE, exception=error)
        if tells:
            self._once.after(task, envelope, outcome)
        else:
            self._give_up_key(job, is_over=True)
        conclude = partial(self._conclude, job, task, request, outcome, None, None)
        self._follow_ups.after_refusal(job, error, conclude)

    def needs_slot(self, job: Job) -> bool:
        """Whether the end of a job that is not run any more may have to wait: for its `on_dead`, or for the idempotency store."""
        assert job.task is not None
        assert job.envelope is not None
        return job.has_last_words or self._once.heeds(job.task, job.envelope)

    def bury_overdue(self, job: Job, slot: int) -> None:
        """`time_out` in a slot, where `on_dead` and the store may take their time; raises nothing."""
        assert job.task is not None
        assert job.envelope is not None
        error = TimeLimitExceeded(self._rules.hard_limit(job.task, job.envelope))
        self._bury(job, slot, error, lambda: self.time_out(job))

    def bury(self, error: MalformedMessage, job: Job, slot: int, *, is_silent: bool = False) -> None:
        """Call the `on_dead` of a job that crashed too often, unless `is_silent`, let others have its key, then refuse it; raises
        nothing."""
        assert job.envelope is not None

        def refuse() -> None:
            self._give_up_key(job, is_over=True)
            self._refuse(job, error)

        self._bury(job, slot, None if is_silent else as_waiter_sees(error, job.envelope), refuse)

    def _bury(self, job: Job, slot: int, error: Exception | None, then: Callable[[], None]) -> None:
        started = self._clock.monotonic()
        self._records.mark(slot, job.key)  # a hook that ends the process is charged to it
        self._records.answer(slot)
        try:
            if error is not None:
                self._last_words.say(job, error)
        except BaseException:
            # Users' code may raise anything. What follows still has to be done, or each process that gets it would end so.
            logger.exception(
                "unexpected error in the last words of task %s", job.name, extra={"action": "runner_error"}
            )
        self._records.clear(slot)
        try:
            then()
        finally:
            self._on_done(job, self._clock.monotonic() - started, False)

    def _give_up_key(self, job: Job, *, is_over: bool = False) -> bool:
        """See `Once.give_up`; a run that ended its process is over."""
        assert job.task is not None
        assert job.envelope is not None
        return self._once.give_up(job.task, job.envelope, is_over=is_over or job.crashes > 0)

    def _request(self, job: Job, envelope: Envelope, embed: Mapping[str, Any] | None = None) -> Request:
        info, hostname = _delivery_info(job, envelope), self._rules.hostname
        return request_from(envelope, delivery_info=info, hostname=hostname, embed=embed or {})

    def _attempt(self, job: Job, slot: int) -> bool:
        task, envelope = job.task, job.envelope
        assert task is not None
        assert envelope is not None
        # From the decoding of its body to the encoding of its outcome: whatever ends the process there is this task's doing.
        self._records.mark(slot, job.key)
        try:
            return self._attempt_marked(job, slot, task, envelope)
        finally:
            self._records.clear(slot)

    def _attempt_marked(self, job: Job, slot: int, task: Task[..., Any], envelope: Envelope) -> bool:
        watch = self._watch(job, slot)
        # Before it is checked: whoever revokes it notes that first, and looks for a run then.
        self._runs.begin(job)
        try:
            request, payload, outcome = self._read_and_run(job, task, envelope, watch)
        finally:
            if watch is not None:
                watch.finish()
            elif not self._runs.take(job):
                raise Overdue
        # Hooks and what follows may take their time, and whoever gets its outcome is not to be told that it was terminated.
        self._records.answer(slot)
        # While the slot is marked: a task that broke its process is charged, and no neighbour begins there.
        self._on_ran()
        if outcome.was_run:
            self._judge(job.delivery.queue_name, outcome)
        again = None
        if outcome.again is not None:
            outcome, again = self._prepare_again(job, task, payload, outcome)
        if task.hooks and outcome.was_run:
            run_hooks(task, request, outcome, self._came_back)
            self._on_ran()  # likewise
        self._once.after(task, envelope, outcome)
        if outcome.state == State.REVOKED:
            raise MalformedMessage(
                DeadLetterReason.REVOKED, error_text(outcome.exception) or "cancelled", task_id=envelope.id
            )
        self._conclude(job, task, request, outcome, again, payload)
        return isinstance(outcome.exception, MemoryError)

    def _read_and_run(
        self, job: Job, task: Task[..., Any], envelope: Envelope, watch: Watch | None
    ) -> tuple[Request, Payload | None, Outcome]:
        rules = self._rules
        try:
            self._check(envelope)
        except MalformedMessage:
            if not job.delivery.redelivered or self._give_up_key(job):
                raise
            # Its last run was killed by us, or has died unseen, and nobody could free the key after this delivery.
            return (
                UnreadRequest(lambda: self._request(job, envelope)),
                None,
                self._once.until_leases_end(envelope),
            )
        try:
            payload = read_payload(envelope, job.delivery.body, accept=rules.accept, limits=rules.limits)
            check_chord(payload)
        except MalformedMessage as exc:
            self._last_words.say(job, as_waiter_sees(exc, envelope))
            raise
        request = UnreadRequest(lambda: self._request(job, envelope, payload.embed))
        if (outcome := self._once.before(task, envelope, is_successor=job.crashes > 0)) is not None:
            return request, payload, outcome
        if job.turn:
            self._began(job)
        if rules.is_tracked(task) and envelope.reply_to:
            self._settler.tell(job, started_record(job, pid=self._pid, hostname=rules.hostname))
        if not rules.is_acked_late(task):
            self._settler.acknowledge_early(job)
        is_revoked = partial(self._is_revoked, envelope)
        return request, payload, _execute(task, request, payload, watch, is_revoked, self._came_back)

    def _watch(self, job: Job, slot: int) -> Watch | None:
        """What looks after the run's limits; None when it has none."""
        task, envelope, rules = job.task, job.envelope, self._rules
        assert task is not None
        assert envelope is not None
        if not (
            envelope.soft_time_limit or task.soft_time_limit or rules.soft_time_limit
            or envelope.time_limit or task.time_limit or rules.time_limit
        ):  # fmt: skip
            return None
        soft, hard = rules.soft_limit(task, envelope), rules.hard_limit(task, envelope)
        if hard and not rules.can_end_a_task:
            if envelope.time_limit not in {None, task.time_limit}:  # others were told at the start
                self._warn_of_hard_limit(task)
            hard = None
        return Watch(self._timekeeper, job, slot, soft=soft, hard=hard)

    def _warn_of_hard_limit(self, task: Task[..., Any]) -> None:
        if task.name not in self._warned:
            self._warned.add(task.name)
            logger.warning(
                "a call of task %s has a hard time limit, which only the pool 'prefork' enforces: it runs without",
                printable(task.name), extra={"action": "time_limit", "task_name": task.name},
            )  # fmt: skip

    def _prepare_again(
        self, job: Job, task: Task[..., Any], payload: Payload | None, outcome: Outcome
    ) -> tuple[Outcome, OutgoingMessage | None]:
        """The message of the next run; where there can be none, the task has failed."""
        assert outcome.again is not None
        try:
            return outcome, message_of(
                job,
                outcome.again,
                payload,
                now=self._clock.now(),
                max_bytes=self._rules.limits.max_message_bytes,
            )
        except Exception as exc:  # noqa: BLE001 - arguments are users' values
            return failed(task, exc), None

    def _conclude(
        self,
        job: Job,
        task: Task[..., Any],
        request: Request,
        outcome: Outcome,
        again: OutgoingMessage | None,
        payload: Payload | None,
    ) -> None:
        log_outcome(job, task, outcome)
        envelope = job.envelope
        assert envelope is not None
        if not outcome.is_invalid:
            self._ends.of_run(envelope, task, outcome)
        if outcome.is_invalid:
            error = MalformedMessage(
                DeadLetterReason.INVALID_ARGUMENTS, str(outcome.exception), task_id=envelope.id
            )
            raise error from outcome.exception
        if isinstance(outcome.exception, TaskPredicate):
            self._obey(job, task, request, outcome, again, payload)
            return
        if payload is None or again is not None or not self._follow_ups.concern(envelope, payload):
            record = self._record(job, task, request, outcome)
            self._store_outcome(job, task, outcome, again, record)
            return
        steps = self._follow_ups.of_outcome(job, payload, outcome, request)
        outcome.children += tuple(steps.children)
        record = self._record(job, task, request, outcome)
        if record is not None:
            # Here, for what is stored after the steps is stored by the I/O thread, where a slow `__json__` would stop all.
            record = self._settler.written(job, record)
        self._follow_ups.publish(job, steps, partial(self._store_outcome, job, task, outcome, None, record))

    def _record(
        self, job: Job, task: Task[..., Any], request: Request, outcome: Outcome
    ) -> ResultRecord | None:
        """What whoever waits is told; None when nobody is."""
        envelope, rules = job.envelope, self._rules
        assert envelope is not None
        is_failure = outcome.state == State.FAILURE
        if is_failure:
            job.end = "failed"
        if not rules.is_stored(task, envelope, is_failure=is_failure):
            return None
        return outcome_record(
            job,
            request,
            outcome,
            now=self._clock.now(),
            hostname=rules.hostname,
            is_extended=rules.result_extended,
        )

    def _store_outcome(
        self,
        job: Job,
        task: Task[..., Any],
        outcome: Outcome,
        again: OutgoingMessage | None,
        record: ResultRecord | None,
    ) -> None:
        envelope = job.envelope
        assert envelope is not None
        if again is not None:
            self._settler.forward(job, again, record)
            return
        if self._is_kept(task, envelope, outcome, record):
            assert outcome.exception is not None
            self._keep(job, outcome.exception, outcome.traceback_text, record)
            return
        if outcome.exception is not None:
            self._ends.of_failure(envelope, outcome.exception)
        if record is not None:
            self._settler.store(job, record)
        else:
            self._settler.acknowledge(job)

    def _is_kept(
        self, task: Task[..., Any], envelope: Envelope, outcome: Outcome, record: ResultRecord | None
    ) -> bool:
        """Whether a failure goes to the dead letters: nobody is told, or it may be resumed, or it is not to be acked."""
        error = outcome.exception
        if outcome.state != State.FAILURE or error is None:
            return False
        return record is None or self._follow_ups.keeps_failure_of(envelope) or self._rules.keeps(task, error)

    def _obey(
        self,
        job: Job,
        task: Task[..., Any],
        request: Request,
        outcome: Outcome,
        again: OutgoingMessage | None,
        payload: Payload | None,
    ) -> None:
        """Do what the task said of itself; see `docs/explanation/retries.md`."""
        signal, envelope = outcome.exception, job.envelope
        assert envelope is not None
        if isinstance(signal, Reject):
            self._reject(job, envelope, signal)
            return
        rules = self._rules
        if isinstance(signal, Retry) and rules.is_stored(task, envelope, is_failure=False):
            # Before the message of the next run, on the same channel: RETRY cannot overtake what that run tells.
            self._settler.tell(
                job, retry_record(job, signal, outcome.traceback_text, hostname=rules.hostname)
            )
        if again is not None:
            self._settler.forward(job, again, None)
            return
        assert payload is not None
        settle = partial(self._settler.acknowledge, job)
        if isinstance(signal, Replaced):
            steps = self._follow_ups.of_replacement(job, payload, request, signal.signature)
            self._follow_ups.publish(job, steps, settle)
        elif self._follow_ups.concern(envelope, payload):
            self._follow_ups.publish(job, self._follow_ups.of_ignoring(envelope, payload), settle)
        else:
            settle()

    def _reject(self, job: Job, envelope: Envelope, signal: Reject) -> None:
        if not signal.requeue:
            raise MalformedMessage(
                DeadLetterReason.REJECTED, f"{signal.reason}", task_id=envelope.id
            ) from signal
        is_delayed = job.delivery.queue_name in self._rules.delaying_queues
        # Only there is a delivery given back, so only there the broker's count is that of such runs (and of crashes).
        count = envelope.requeues + (envelope.delivery_count if is_delayed else 0)
        if count >= self._rules.requeue_limit:
            error = requeue_refusal(envelope.id, count, signal)
            self._last_words.say(job, as_waiter_sees(error, envelope))
            raise error from signal
        if is_delayed:
            self._settler.give_back(job, requeued(job))
        else:
            # Not by nack, which RabbitMQ does not count from 4.3 on, and which puts it before all others again.
            self._settler.forward(job, requeued(job), None)


def _execute(
    task: Task[..., Any],
    request: Request,
    payload: Payload,
    watch: Watch | None,
    is_revoked: Callable[[], bool],
    came_back: Callable[..., None],
) -> Outcome:
    """Run it; a task that asks the process to exit has failed, and the process goes on."""
    try:
        outcome = execute(task, request, payload, guard=watch, is_revoked=is_revoked, came_back=came_back)
    except BaseException as exc:  # noqa: BLE001 - nothing a task raises may leave its delivery open
        came_back(exc)
        error = RuntimeError(
            f"the task raised {type(exc).__name__}({error_text(exc)}); a task cannot end its worker this way"
        )
        frames = exc.__traceback__
        told = exc.with_traceback(frames and frames.tb_next)  # without this one, as for any other failure
        return Outcome(state=State.FAILURE, exception=error, traceback_text=format_traceback(told))
    came_back(outcome.exception)
    return outcome


def _delivery_info(job: Job, envelope: Envelope) -> DeliveryInfo:
    delivery = job.delivery
    return {
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "priority": envelope.priority,
        "redelivered": delivery.redelivered,
        "queue": delivery.queue_name,
    }
