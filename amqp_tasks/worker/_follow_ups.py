"""What follows a task in a workflow: callbacks, the next step, errbacks, and outcomes for joins that wait.

Each is published and confirmed before the task's own outcome is stored and its delivery acked: a crash in between leaves
them twice, under the same ids, and never not at all. See `docs/explanation/workflows.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from amqp_tasks.app._execution import request_from
from amqp_tasks.canvas import Join
from amqp_tasks.errors import MalformedMessage, TaskRevokedError
from amqp_tasks.message import (
    JOINS_HEADER,
    DeadLetterReason,
    Limits,
    State,
    printable,
    read_joins,
    read_mark,
    read_payload,
    read_watch,
)
from amqp_tasks.worker._job import run_name
from amqp_tasks.worker._joiner import Joiner
from amqp_tasks.worker._sending import Closing, Sending
from amqp_tasks.worker._steps import StepMaker, Steps, Whose

if TYPE_CHECKING:
    from amqp_tasks.app import App, Request
    from amqp_tasks.canvas import Signature
    from amqp_tasks.message import Envelope, Payload
    from amqp_tasks.worker._job import Job

__all__ = ("FollowUps",)

logger = logging.getLogger(__name__)

_NOTHING_FOLLOWS = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_REFUSED_LIMITS = Limits(max_message_bytes=1024 * 1024, max_decompressed_bytes=1024 * 1024)


class Ended(Protocol):
    """What is looked at of an `Outcome`."""

    @property
    def state(self) -> str:
        """SUCCESS or FAILURE."""
        ...

    @property
    def value(self) -> Any:
        """What is passed on."""
        ...

    @property
    def added(self) -> int:
        """How many tasks it added to the header it is in."""
        ...

    @property
    def exception(self) -> Exception | None:
        """Why it failed."""
        ...

    @property
    def traceback_text(self) -> str | None:
        """Its traceback."""
        ...


class FollowUps:
    """Thread safety: slots and the joiner's thread; `publish` reports on the I/O thread.

    Args:
        app: whose tasks they are.
        call_later: runs something on the control thread after some seconds.
        accept: content types whose bodies may be decoded.
        limits: of the messages in a join.
        hostname: the node.
        has_dead_letters: whether failures can be kept.
    """

    def __init__(
        self,
        app: App,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        accept: tuple[str, ...],
        limits: Limits,
        hostname: str,
        has_dead_letters: bool,
    ) -> None:
        self._accept, self._has_dead_letters = accept, has_dead_letters
        self._limits = limits
        self._maker = StepMaker(app, hostname=hostname, has_dead_letters=has_dead_letters)
        self._sending = Sending(app, call_later, aside=self.aside)
        self._joiner = Joiner(
            app, self._maker, self._sending, limits, call_later, keeps_failures=has_dead_letters
        )

    def aside(self, work: Callable[[], None]) -> None:
        """Do something on a thread that may wait; never, once this is closed. Any thread."""
        self._joiner.run(work)

    def close(self, *, timeout: float) -> None:
        """Begin nothing more, and let nobody wait for the broker any longer: see `Closing`."""
        self._sending.close()
        self._joiner.close(timeout=timeout)

    @staticmethod
    def concern(envelope: Envelope, payload: Payload | None) -> bool:
        """Whether anything follows a task."""
        if JOINS_HEADER in envelope.headers:
            return True
        if payload is None:
            return False
        part = (
            payload.embed.get
        )  # one after the other: this is asked of each task, and a generator takes four times as long
        return bool(part("callbacks") or part("errbacks") or part("chain") or part("chord"))

    def of_outcome(
        self, job: Job, payload: Payload | None, outcome: Ended, request: Request, *, in_slot: bool = True
    ) -> Steps:
        """The steps after a run that has ended for good. Waits for the broker where it has to be asked, then calls errbacks.

        Args:
            job, payload: the task's message; no payload where its body cannot be read.
            outcome: how it ended.
            request: of the task.
            in_slot: whether this is called in the slot of that run; see `Whose`.

        Raises:
            Closing: the worker closes meanwhile.
        """
        envelope = job.envelope
        assert envelope is not None
        embed: dict[str, Any] = payload.embed if payload is not None else {}
        joins = _joins_of(envelope)
        whose = Whose(
            task_id=envelope.id, root_id=envelope.root_id, request=request, in_slot=in_slot,
            added=outcome.added, mark=read_mark(envelope.headers), kept_as=self._kept_as(envelope, outcome),
            queue_name=job.delivery.queue_name,
        )  # fmt: skip
        rest: Sequence[Any] = embed.get("chain") or ()
        if outcome.state == State.SUCCESS:
            return self._sending.until_broker_is_back(
                lambda: self._maker.after_success(whose, embed, rest, joins, outcome.value)
            )
        error = outcome.exception or RuntimeError("the task has failed")
        if embed.get("chord"):
            rest = (embed["chord"], *rest)  # its body will not run either
        steps = self._sending.until_broker_is_back(
            lambda: self._maker.after_failure(
                whose, embed.get("errbacks"), rest, joins, error, outcome.traceback_text
            )
        )
        for call in steps.calls:
            call()
        return steps

    def keeps_failure_of(self, envelope: Envelope) -> bool:
        """Whether it is kept in the dead letters when it fails, even though somebody is told: as a step that can be resumed."""
        return self._has_dead_letters and read_mark(envelope.headers) is not None

    def _kept_as(self, envelope: Envelope, outcome: Ended) -> str:
        # What was revoked, or has expired, is not wanted any more, and no dead letter.
        is_unwanted = isinstance(outcome.exception, TaskRevokedError)
        if outcome.state == State.SUCCESS or is_unwanted or not self.keeps_failure_of(envelope):
            return ""
        return run_name(envelope.id, envelope.retries, envelope.snoozes)

    def of_ignoring(self, envelope: Envelope, payload: Payload) -> Steps:
        """The steps after a task that raised `Ignore`."""
        whose = Whose(task_id=envelope.id, root_id=envelope.root_id, mark=read_mark(envelope.headers))
        return self._maker.after_ignoring(whose, payload.embed.get("chain") or (), _joins_of(envelope))

    def of_replacement(self, job: Job, payload: Payload, request: Request, part: Signature) -> Steps:
        """What takes the place of a task. Waits for the broker where it has to be asked.

        Raises:
            Closing: the worker closes meanwhile.
        """
        envelope = job.envelope
        assert envelope is not None
        whose = Whose(
            task_id=envelope.id,
            root_id=envelope.root_id,
            request=request,
            nesting=request.replaced_task_nesting + 1,
            snoozes=envelope.snoozes,
            mark=read_mark(envelope.headers),
            queue_name=job.delivery.queue_name,
        )
        joins = _joins_of(envelope)
        return self._sending.until_broker_is_back(
            lambda: self._maker.in_place(whose, part, payload.embed, joins, request)
        )

    def after_refusal(self, job: Job, error: Exception, then: Callable[[], None]) -> None:
        """Tell the rest of a workflow that one of its tasks will not run, then call `then`; at once when there is none.

        Thread safety: any thread. Reading the body and what may wait for the broker is done aside.
        """
        envelope = job.envelope
        assert envelope is not None
        is_alone = not envelope.compression and job.delivery.body.endswith(_NOTHING_FOLLOWS)
        if is_alone and JOINS_HEADER not in envelope.headers:
            then()
        else:
            self._joiner.run(partial(self._tell_refusal, job, envelope, error, then))

    def _tell_refusal(self, job: Job, envelope: Envelope, error: Exception, then: Callable[[], None]) -> None:
        payload = self._payload_of(job, envelope)
        if not self.concern(envelope, payload):
            then()
            return
        try:
            request = request_from(envelope, delivery_info={}, hostname="")
            if payload is not None:
                request.args, request.kwargs = tuple(payload.args), dict(payload.kwargs)
            failed = _Failed(exception=error)
            steps = self.of_outcome(job, payload, failed, request, in_slot=False)
        except Closing:
            return
        except (Exception, SystemExit):
            logger.exception("what follows task %s cannot be told of its end", printable(envelope.id))
            then()
            return
        self.publish(job, steps, then)

    def _payload_of(self, job: Job, envelope: Envelope) -> Payload | None:
        """The body of a refused message, where it is small and can be read; else only joins are told, by its headers."""
        try:
            return read_payload(envelope, job.delivery.body, accept=self._accept, limits=_REFUSED_LIMITS)
        except (Exception, SystemExit):  # noqa: BLE001 - it is refused already
            return None

    def watch(self, job: Job, then: Callable[[], None], refuse: Callable[[MalformedMessage], None]) -> None:
        """Look at the join that a message is about, then call `then`; or `refuse`, where it is about none, or gives up one that
        may still go on.

        Thread safety: any thread. All of it is done aside.
        """
        self._joiner.run(partial(self._watch, job, then, refuse))

    def _watch(self, job: Job, then: Callable[[], None], refuse: Callable[[MalformedMessage], None]) -> None:
        assert job.envelope is not None
        try:
            watch = read_watch(job.envelope, job.delivery.body, limits=self._limits)
        except MalformedMessage as exc:
            refuse(exc)
            return
        if job.envelope.snoozes:  # it comes from the dead letters
            watch = watch.anew
        queue_name = job.delivery.queue_name
        self._joiner.watch(watch, queue_name, then, partial(_set_aside, refuse, job.envelope.id))

    # -- publishing

    def publish(self, job: Job, steps: Steps, then: Callable[[], None]) -> None:
        """Publish all of it, until it is confirmed, then call `then`, once, on some thread; joins are looked at before the job
        is acked, when its own outcome is stored, so that who gets the body's result finds those of the members."""
        if steps.joins or steps.instead:
            job.last_step = partial(self._look, steps, job.delivery.queue_name)
        self._sending.send(steps, then)

    def _look(self, steps: Steps, queue_name: str, then: Callable[[], None]) -> None:
        """What was published instead of something may have told joins, too."""
        if steps.joins:
            self._joiner.look(steps.joins, queue_name, then)
        else:
            then()


@dataclass(slots=True)
class _Failed:
    exception: Exception | None
    state: str = State.FAILURE
    value: Any = None
    traceback_text: str | None = None
    added: int = 0


def _set_aside(refuse: Callable[[MalformedMessage], None], watch_id: str, why: str) -> None:
    refuse(MalformedMessage(DeadLetterReason.STEP_LOST, why, task_id=watch_id))


def _joins_of(envelope: Envelope) -> tuple[Join, ...]:
    return tuple(
        Join(queue=queue, index=index, size=size) for queue, index, size in read_joins(envelope.headers)
    )
