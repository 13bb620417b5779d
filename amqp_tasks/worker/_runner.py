"""Running one job in its slot: decode, run, record the outcome. Whatever happens, the job is settled and the slot freed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.app import DeliveryInfo, Request
from amqp_tasks.app._execution import Outcome, execute, failed, request_from
from amqp_tasks.app._hooks import run_hooks
from amqp_tasks.app._request import UnreadRequest
from amqp_tasks.errors import MalformedMessage, Reject, Replaced, Retry, TaskPredicate, TimeLimitExceeded
from amqp_tasks.message import (
    DeadLetterReason,
    Envelope,
    Limits,
    OutgoingMessage,
    Payload,
    State,
    bounded_repr,
    printable,
    read_payload,
)
from amqp_tasks.worker._accounts import (
    as_waiter_sees,
    error_text,
    outcome_record,
    retry_record,
    started_record,
)
from amqp_tasks.worker._again import message_of, requeued
from amqp_tasks.worker._follow_ups import FollowUps
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._last_words import LastWords
from amqp_tasks.worker._limits import Overdue, Timekeeper, Watch
from amqp_tasks.worker._records import Records
from amqp_tasks.worker._runs import Runs
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
    ignore_result: bool
    store_errors_even_if_ignored: bool
    track_started: bool
    result_extended: bool
    has_backend: bool
    time_limit: float | None
    soft_time_limit: float | None
    can_end_a_task: bool

    def is_acked_late(self, task: Task[..., Any]) -> bool:
        """Whether the ack comes after the run."""
        return self.acks_late if task.acks_late is None else task.acks_late

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
        check: whether it may start: raises for what is revoked, or has expired.
        refuse: what to do with a body that cannot be read, arguments that do not fit, or what may not start.
        follow_ups: makes and sends what follows a task in a workflow.
        keep: what to do with a failure that goes to nobody.
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
        check: Callable[[Envelope], None],
        follow_ups: FollowUps,
        refuse: Callable[[Job, MalformedMessage], None],
        keep: Callable[[Job, Outcome], None],
        on_done: Callable[[Job, float, bool], None],
        clock: Clock,
    ) -> None:
        self._rules, self._settler, self._records = rules, settler, records
        self._refuse, self._keep, self._on_done, self._clock = refuse, keep, on_done, clock
        self._timekeeper, self._runs, self._check, self._began = timekeeper, runs, check, began
        self._follow_ups = follow_ups
        self._last_words = LastWords(request_of=self._request, accept=rules.accept, limits=rules.limits)
        self._warned: set[str] = set()
        self._pid = os.getpid()

    def run(self, job: Job, slot: int) -> None:
        """Run it and settle it; raises nothing."""
        started = self._clock.monotonic()
        is_short_of_memory = is_overdue = False
        try:
            is_short_of_memory = self._attempt(job, slot)
        except Overdue:
            is_overdue = True
            self._runs.abandoned.set()
        except MalformedMessage as exc:
            self._refuse(job, exc)
        except Exception as exc:
            # Not the task's: `execute` keeps those. What cannot be handled is set aside, not tried for ever.
            logger.exception("unexpected error around task %s", job.key, extra={"action": "runner_error"})
            error = MalformedMessage(DeadLetterReason.FAILED, f"unexpected error in the worker: {exc!r}")
            error.__cause__ = exc
            self._refuse(job, error)
        finally:
            if not is_overdue:
                self._on_done(job, self._clock.monotonic() - started, is_short_of_memory)

    def revoke_running(self, job: Job) -> None:
        """Answer for a job whose run is terminated and will not answer itself; any thread."""
        assert job.envelope is not None
        logger.warning(
            "Task %s[%s] is terminated", printable(job.envelope.shadow or job.envelope.task), printable(job.envelope.id),
            extra=_about("terminated", job.envelope),
        )  # fmt: skip
        self._refuse(job, MalformedMessage(DeadLetterReason.REVOKED, "terminated", task_id=job.envelope.id))

    def time_out(self, job: Job, *, tells: bool = False) -> None:
        """Answer for a job whose run has passed its hard limit and will not answer itself; any thread.

        Args:
            job: what ran.
            tells: give its `on_dead` some time first; only where waiting harms nobody.
        """
        task, envelope = job.task, job.envelope
        assert task is not None
        assert envelope is not None
        error = TimeLimitExceeded(self._rules.hard_limit(task, envelope))
        if tells:
            self._last_words.say_in_time(job, error)
        request = self._request(job, envelope)
        outcome = Outcome(state=State.FAILURE, exception=error)
        conclude = partial(self._conclude, job, task, request, outcome, None, None)
        self._follow_ups.after_refusal(job, error, conclude)

    def bury_overdue(self, job: Job, slot: int) -> None:
        """`time_out` in a slot, where `on_dead` may take its time; raises nothing."""
        assert job.task is not None
        assert job.envelope is not None
        error = TimeLimitExceeded(self._rules.hard_limit(job.task, job.envelope))
        self._bury(job, slot, error, lambda: self.time_out(job))

    def bury(self, error: MalformedMessage, job: Job, slot: int) -> None:
        """Call the `on_dead` of a job that is not run any more, then refuse it; raises nothing."""
        assert job.envelope is not None
        self._bury(job, slot, as_waiter_sees(error, job.envelope), lambda: self._refuse(job, error))

    def _bury(self, job: Job, slot: int, error: Exception, then: Callable[[], None]) -> None:
        started = self._clock.monotonic()
        self._records.mark(slot, job.key)  # a hook that ends the process is charged to it
        try:
            self._last_words.say(job, error)
        finally:
            self._records.clear(slot)
            then()
            self._on_done(job, self._clock.monotonic() - started, False)

    def _request(self, job: Job, envelope: Envelope) -> Request:
        return request_from(
            envelope, delivery_info=_delivery_info(job, envelope), hostname=self._rules.hostname
        )

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
        again = None
        if outcome.again is not None:
            outcome, again = self._prepare_again(job, task, payload, outcome)
        if task.hooks:
            run_hooks(task, request, outcome)
        self._conclude(job, task, request, outcome, again, payload)
        return isinstance(outcome.exception, MemoryError)

    def _read_and_run(
        self, job: Job, task: Task[..., Any], envelope: Envelope, watch: Watch | None
    ) -> tuple[Request, Payload, Outcome]:
        rules = self._rules
        self._check(envelope)
        try:
            payload = read_payload(envelope, job.delivery.body, accept=rules.accept, limits=rules.limits)
        except MalformedMessage as exc:
            self._last_words.say(job, as_waiter_sees(exc, envelope))
            raise
        request = UnreadRequest(lambda: self._request(job, envelope))
        if job.turn:
            self._began(job)
        if rules.is_tracked(task) and envelope.reply_to:
            self._settler.tell(job, started_record(job, pid=self._pid, hostname=rules.hostname))
        if not rules.is_acked_late(task):
            self._settler.acknowledge_early(job)
        return request, payload, _execute(task, request, payload, watch)

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
            self._warn_of_hard_limit(task)
            hard = None
        return Watch(self._timekeeper, job, slot, soft=soft, hard=hard)

    def _warn_of_hard_limit(self, task: Task[..., Any]) -> None:
        if task.name not in self._warned:
            self._warned.add(task.name)
            logger.warning(
                "task %s has a hard time limit, which only the pool 'prefork' enforces: it runs without",
                printable(task.name), extra={"action": "time_limit", "task_name": task.name},
            )  # fmt: skip

    def _prepare_again(
        self, job: Job, task: Task[..., Any], payload: Payload, outcome: Outcome
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
        _log_outcome(job, task, outcome)
        envelope = job.envelope
        assert envelope is not None
        if outcome.is_invalid:
            error = MalformedMessage(
                DeadLetterReason.INVALID_ARGUMENTS, str(outcome.exception), task_id=envelope.id
            )
            raise error from outcome.exception
        if isinstance(outcome.exception, TaskPredicate):
            self._obey(job, task, request, outcome, again, payload)
            return
        if payload is None or again is not None or not self._follow_ups.concern(envelope, payload):
            self._store_outcome(job, task, request, outcome, again)
            return
        steps = self._follow_ups.of_outcome(envelope, payload, outcome, request)
        outcome.children += tuple(steps.children)
        self._follow_ups.publish(job, steps, partial(self._store_outcome, job, task, request, outcome, None))

    def _store_outcome(
        self,
        job: Job,
        task: Task[..., Any],
        request: Request,
        outcome: Outcome,
        again: OutgoingMessage | None,
    ) -> None:
        envelope = job.envelope
        assert envelope is not None
        rules, record = self._rules, None
        is_failure = outcome.state == State.FAILURE
        if rules.is_stored(task, envelope, is_failure=is_failure):
            record = outcome_record(
                job, request, outcome, now=self._clock.now(), is_extended=rules.result_extended
            )
        if again is not None:
            self._settler.forward(job, again, record)
        elif record is not None:
            self._settler.store(job, record)
        elif is_failure:
            self._keep(job, outcome)
        else:
            self._settler.acknowledge(job)

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
            if not signal.requeue:
                raise MalformedMessage(
                    DeadLetterReason.REJECTED, f"{signal.reason}", task_id=envelope.id
                ) from signal
            self._settler.requeue(job, requeued(job))
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
            steps = self._follow_ups.of_replacement(envelope, payload, request, signal.signature)
            self._follow_ups.publish(job, steps, settle)
        elif self._follow_ups.concern(envelope, payload):
            self._follow_ups.publish(job, self._follow_ups.of_ignoring(envelope, payload), settle)
        else:
            settle()


def _execute(task: Task[..., Any], request: Request, payload: Payload, watch: Watch | None) -> Outcome:
    """Run it; a task that asks the process to exit has failed, and the process goes on."""
    try:
        return execute(task, request, payload, guard=watch)
    except BaseException as exc:  # noqa: BLE001 - nothing a task raises may leave its delivery open
        error = RuntimeError(
            f"the task raised {type(exc).__name__}({exc}); a task cannot end its worker this way"
        )
        return Outcome(state=State.FAILURE, exception=error)


def _delivery_info(job: Job, envelope: Envelope) -> DeliveryInfo:
    delivery = job.delivery
    return {
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "priority": envelope.priority,
        "redelivered": delivery.redelivered,
        "queue": delivery.queue_name,
    }


def _log_outcome(job: Job, task: Task[..., Any], outcome: Outcome) -> None:
    envelope = job.envelope
    if envelope is None or outcome.is_invalid:
        return
    if outcome.exception is None:
        if logger.isEnabledFor(logging.INFO):
            shown = printable(bounded_repr(outcome.retval, task.resultrepr_maxsize), task.resultrepr_maxsize)
            logger.info(
                "Task %s[%s] succeeded in %.6fs: %s",
                printable(envelope.shadow or task.name), printable(envelope.id), outcome.runtime, shown,
                extra=_about("succeeded", envelope),
            )  # fmt: skip
        return
    if isinstance(outcome.exception, TaskPredicate):
        _log_signal(envelope, outcome.exception, outcome.state)
        return
    _log_failure(envelope, task, outcome)


def _log_signal(envelope: Envelope, signal: TaskPredicate, state: str) -> None:
    logger.info(
        "Task %s[%s] %s: %s",
        printable(envelope.shadow or envelope.task), printable(envelope.id), state.lower(),
        printable(f"{signal}", 1024), extra=_about(state.lower(), envelope),
    )  # fmt: skip


def _log_failure(envelope: Envelope, task: Task[..., Any], outcome: Outcome) -> None:
    error = outcome.exception
    shown = printable(f"{type(error).__name__}({error_text(error)})", 1024)
    name, task_id = printable(envelope.shadow or task.name), printable(envelope.id)
    if outcome.is_expected:
        logger.info("Task %s[%s] raised expected: %s", name, task_id, shown, extra=_about("failed", envelope))
        return
    # The text comes from users' code; line by line, so that it can neither move the cursor nor forge a record.
    lines = (printable(line, 4096) for line in (outcome.traceback_text or "").splitlines())
    logger.error(
        "Task %s[%s] raised unexpected: %s\n%s", name, task_id, shown, "\n".join(lines),
        extra=_about("failed", envelope),
    )  # fmt: skip


def _about(action: str, envelope: Envelope) -> dict[str, Any]:
    return {"action": action, "task_id": envelope.id, "task_name": envelope.task}
