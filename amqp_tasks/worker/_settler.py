"""How jobs end: outcome published and confirmed, then the delivery settled; once, on every path.

An outcome that cannot be published is published again with growing pauses. Until it is confirmed the delivery
stays unacked, so whatever ends this process loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.errors import EncodeError, MessageTooLarge, PublishNacked, UnroutableError
from amqp_tasks.message import OutgoingMessage, ResultRecord, State
from amqp_tasks.transport import Settlement
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._verdicts import Verdicts

if TYPE_CHECKING:
    from amqp_tasks.backend import ResultBackend
    from amqp_tasks.transport import Consumer, Transport

__all__ = ("MAX_PAUSE", "Settler", "SettlerParts")

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_FLUSH_WITHIN = 5.0
MAX_PAUSE = 30.0
# A reply queue that still refuses after the publisher's own tries, twice, has lost its node: its reader has been told of
# that, and the worker has others to serve. Ten seconds in all.
_LAST_NACKED_PAUSE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlerParts:
    """What a settler works with.

    Attributes:
        transport: publishes dead letters and retries.
        backend: stores results; None when results are disabled.
        ledger: knows what is open.
        verdicts: is told of outcomes whose acks may be lost.
        call_later: runs something on the control thread after some seconds.
        on_settled: called after each settlement.
        count: told of each end, see `Job.end`.
        keep: sets a job aside whose failure can be told to nobody, see `Settler.set_aside`.
        end_instead: ends a job that has failed because its next run can never be published; with what whoever waits is told.
    """

    transport: Transport
    backend: ResultBackend | None
    ledger: Ledger
    verdicts: Verdicts
    call_later: Callable[[float, Callable[[], None]], object]
    on_settled: Callable[[], None]
    count: Callable[[str], None]
    keep: Callable[[Job, Exception, str | None], None]
    end_instead: Callable[[Job, Exception, ResultRecord], None]


class Settler:
    """Thread safety: any thread. `consumer` is set once, before the first delivery is handled."""

    consumer: Consumer

    def __init__(self, parts: SettlerParts) -> None:
        self._parts = parts

    def acknowledge(self, job: Job) -> None:
        """The job's outcome is where it belongs."""
        self._close(job)

    def acknowledge_early(self, job: Job) -> None:
        """Ack before the run (`acks_late=False`); the job stays open until its outcome is stored.

        The ack is on its way when this returns: a task that ends its process would take back one that is still gathered.
        """
        job.is_acked = True
        self.consumer.settle(job.delivery, Settlement.ACK)
        self.consumer.flush(timeout=_FLUSH_WITHIN)

    def hand_back(self, job: Job) -> None:
        """Requeue a delivery that was not started and so is not open."""
        self.consumer.settle(job.delivery, Settlement.REQUEUE)

    def written(self, job: Job, record: ResultRecord) -> ResultRecord:
        """The record as it can be stored on any thread: users' values in it are encoded here. In place of one that cannot be
        written it is the failure that says so."""
        backend = self._parts.backend
        if backend is None:
            return record
        try:
            backend.write(record)
        except EncodeError as exc:
            return _failure_instead(job, record, exc)
        except Exception:  # noqa: BLE001, S110 - where it is stored it fails again, and is kept and tried again
            pass
        return record

    def store(self, job: Job, record: ResultRecord) -> None:
        """Store the outcome, then ack. A result that cannot be written becomes a failure that says so."""
        self._store(job, record, _FIRST_PAUSE)

    def tell(self, job: Job, record: ResultRecord) -> None:
        """Send a state that is not final; nobody waits for its fate, as the next state replaces it."""
        backend, envelope = self._parts.backend, job.envelope
        if backend is None or envelope is None:
            return
        try:
            backend.store_nowait(
                record, reply_to=envelope.reply_to, correlation_id=envelope.correlation_id, on_stored=_ignore
            )
        except Exception:
            # Why a task is retried may be anything; that it cannot be told must not keep it from its retry.
            logger.warning("state %s of task %s cannot be sent", record.status, job.name, exc_info=True)

    def set_aside(self, job: Job, message: OutgoingMessage, record: ResultRecord | None) -> None:
        """Publish a dead letter, then tell who waits, then ack."""
        # What cannot be published is left to the queue's own dead-letter exchange, as it is.
        self._forward(job, message, record, lambda _: self.drop(job, record))

    def forward(self, job: Job, message: OutgoingMessage, record: ResultRecord | None) -> None:
        """Publish the message of the task's next run, then store the outcome if there is one, then ack.

        A crash in between leaves the task twice, under one id, and never not at all. A message that can never be published ends
        the task as a dead letter.
        """
        self._forward(job, message, record, partial(self._end_instead, job, record))

    def _forward(
        self,
        job: Job,
        message: OutgoingMessage,
        record: ResultRecord | None,
        instead: Callable[[Exception], None],
    ) -> None:
        """`instead` gets the error when the message can never be published."""
        job.is_kept, job.end = True, ""
        if record is not None:
            record = self.written(job, record)
        self._set_aside(job, message, record, instead, _FIRST_PAUSE)

    def _end_instead(self, job: Job, record: ResultRecord | None, error: Exception) -> None:
        """It has no next run: its failure is what has come of it, unless it has an outcome already."""
        envelope = job.envelope
        if job.task is None or envelope is None:
            self.drop(job, record)
            return
        job.is_kept, job.end = False, "failed"
        failed = ResultRecord(
            task_id=envelope.id, status=State.FAILURE, result=error, retries=envelope.retries
        )
        self._parts.end_instead(job, error, record or failed)

    def give_back(self, job: Job, copy: OutgoingMessage) -> None:
        """Leave it to the queue when the delivery comes again; `copy` takes its place where that is not possible any more."""
        delivery = None if job.is_acked else self._parts.ledger.release(job)
        if delivery is None:
            self.forward(job, copy, None)
            return
        self.consumer.settle(delivery, Settlement.RETURN)
        self._parts.on_settled()

    def drop(self, job: Job, record: ResultRecord | None) -> None:
        """Tell who waits, then refuse without a dead letter of ours: the queue's own dead-letter exchange, if any, gets it."""
        job.is_refused, job.end = True, ""
        if record is not None:
            self._store(job, record, _FIRST_PAUSE)
        else:
            self._close(job)

    def _close(self, job: Job) -> None:
        last_step, job.last_step = job.last_step, None
        if last_step is None:
            self._settle(job)
        else:
            last_step(partial(self._settle, job))

    def _settle(self, job: Job) -> None:
        delivery, must_tell = self._parts.ledger.close(job)
        if must_tell and job.key:
            verdicts = self._parts.verdicts
            (verdicts.tell_refused if job.goes_to_broker else verdicts.tell_finished)((job.key,))
        if job.end:
            self._parts.count(job.end)
        if not job.is_acked:
            self.consumer.settle(delivery, Settlement.DROP if job.goes_to_broker else Settlement.ACK)
        self._parts.on_settled()

    def _store(self, job: Job, record: ResultRecord, pause: float) -> None:
        backend, envelope = self._parts.backend, job.envelope
        if backend is None or envelope is None or not envelope.reply_to:
            self._close(job)
            return
        try:
            backend.store_nowait(
                record,
                reply_to=envelope.reply_to,
                correlation_id=envelope.correlation_id,
                on_stored=partial(self._stored, job, record, pause),
            )
        except EncodeError as exc:
            self._store_instead(job, record, exc, pause)
        except Exception as exc:  # noqa: BLE001 - the task has run; that must not be forgotten, whatever is wrong
            self._stored(job, record, pause, exc)

    def _store_instead(self, job: Job, record: ResultRecord, error: Exception, pause: float) -> None:
        """Store a FAILURE in place of a result that cannot be sent; once."""
        if isinstance(record.result, EncodeError | MessageTooLarge):
            # Even that cannot be: then it is the caller's address that is wrong.
            self._give_up(job, record)
            return
        self._store(job, _failure_instead(job, record, error), pause)

    def _stored(self, job: Job, record: ResultRecord, pause: float, error: Exception | None) -> None:
        """On the I/O thread."""
        if error is None:
            self._close(job)
        elif isinstance(error, MessageTooLarge | EncodeError):
            self._store_instead(job, record, error, pause)
        elif isinstance(error, UnroutableError):
            # The caller has left; no other attempt finds him.
            self._give_up(job, record)
        elif isinstance(error, PublishNacked) and pause >= _LAST_NACKED_PAUSE:
            logger.error(
                "the result of task %s is given up: %s", record.task_id, error,
                extra={"action": "result_given_up", "task_id": record.task_id},
            )  # fmt: skip
            self._give_up(job, record)
        else:
            logger.warning(
                "the result of task %s is not stored yet, trying again in %.1f s: %s", job.name, pause, error,
                extra={"action": "store_again", "task_id": record.task_id},
            )  # fmt: skip
            self._parts.call_later(pause, partial(self._store, job, record, min(MAX_PAUSE, pause * 2)))

    def _give_up(self, job: Job, record: ResultRecord) -> None:
        """Nobody can be told of the outcome. A failure is always somewhere: then among the dead letters."""
        is_somewhere = record.status != State.FAILURE or job.is_kept or job.is_refused
        if not is_somewhere and isinstance(record.result, Exception):
            self._parts.keep(job, record.result, record.traceback)
        else:
            self._close(job)

    def _set_aside(
        self,
        job: Job,
        message: OutgoingMessage,
        record: ResultRecord | None,
        instead: Callable[[Exception], None],
        pause: float,
    ) -> None:
        report = partial(self._was_set_aside, job, message, record, instead, pause)
        try:
            self._parts.transport.publish_nowait(message, report)
        except Exception as exc:  # noqa: BLE001 - kept and tried again, and never thrown into the I/O thread
            report(exc)

    def _was_set_aside(
        self,
        job: Job,
        message: OutgoingMessage,
        record: ResultRecord | None,
        instead: Callable[[Exception], None],
        pause: float,
        error: Exception | None,
    ) -> None:
        """On the I/O thread."""
        if error is None and record is not None:
            self._store(job, record, _FIRST_PAUSE)
        elif error is None:
            self._close(job)
        elif isinstance(error, MessageTooLarge | EncodeError):
            logger.error(
                "a message of queue %r can never be published to %r: %s",
                job.delivery.queue_name, message.routing_key, error,
                extra={"action": "publish_refused", "queue": job.delivery.queue_name},
            )  # fmt: skip
            instead(error)
        else:
            logger.error(
                "cannot publish a message of queue %r to %r, trying again in %.1f s: %s",
                job.delivery.queue_name, message.routing_key, pause, error,
                extra={"action": "publish_again", "queue": job.delivery.queue_name},
            )  # fmt: skip
            again = partial(self._set_aside, job, message, record, instead, min(MAX_PAUSE, pause * 2))
            self._parts.call_later(pause, again)


def _failure_instead(job: Job, record: ResultRecord, error: Exception) -> ResultRecord:
    """The FAILURE that takes the place of a result which cannot be sent."""
    job.end = job.end and "failed"
    logger.error(
        "the result of task %s cannot be stored: %s", record.task_id, error,
        extra={"action": "result_refused", "task_id": record.task_id},
    )  # fmt: skip
    return ResultRecord(
        task_id=record.task_id,
        status=State.FAILURE,
        result=error,
        date_done=record.date_done,
        group_id=record.group_id,
        parent_id=record.parent_id,
        name=record.name,
        worker=record.worker,
        retries=record.retries,
        queue=record.queue,
    )


def _ignore(error: Exception | None) -> None:
    """A state on the way was or was not stored."""
