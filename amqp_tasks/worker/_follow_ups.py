"""What follows a task in a workflow: callbacks, the next step, errbacks, and outcomes for joins that wait.

Each is published and confirmed before the task's own outcome is stored and its delivery acked: a crash in between leaves
them twice, under the same ids, and never not at all. See `docs/explanation/workflows.md`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from amqp_tasks.app._execution import request_from
from amqp_tasks.canvas import Join
from amqp_tasks.errors import AmqpTasksError, BrokerConnectionError
from amqp_tasks.message import (
    JOINS_HEADER,
    Limits,
    OutgoingMessage,
    ResultRecord,
    State,
    printable,
    read_joins,
    read_payload,
)
from amqp_tasks.worker._joiner import Joiner
from amqp_tasks.worker._steps import StepMaker, Steps, Whose, is_too_late

if TYPE_CHECKING:
    from amqp_tasks.app import App, Request
    from amqp_tasks.canvas import Signature
    from amqp_tasks.message import Envelope, Payload
    from amqp_tasks.worker._job import Job

__all__ = ("FollowUps",)

logger = logging.getLogger(__name__)

_NOTHING_FOLLOWS = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_REFUSED_LIMITS = Limits(max_message_bytes=1024 * 1024, max_decompressed_bytes=1024 * 1024)
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 30.0


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
    """

    def __init__(
        self,
        app: App,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        accept: tuple[str, ...],
        limits: Limits,
    ) -> None:
        self._app, self._call_later, self._accept = app, call_later, accept
        self._maker = StepMaker(app)
        self._joiner = Joiner(app, self._maker, limits, call_later)

    def close(self, *, timeout: float) -> None:
        """Begin nothing more."""
        self._joiner.close(timeout=timeout)

    @staticmethod
    def concern(envelope: Envelope, payload: Payload | None) -> bool:
        """Whether anything follows a task."""
        if JOINS_HEADER in envelope.headers:
            return True
        embed = payload.embed if payload is not None else {}
        return any(embed.get(name) for name in ("callbacks", "errbacks", "chain"))

    def of_outcome(self, envelope: Envelope, payload: Payload | None, outcome: Ended, request: Any) -> Steps:
        """The steps after a run that has ended for good. Waits for the broker where it has to be asked."""
        embed: dict[str, Any] = payload.embed if payload is not None else {}
        joins = _joins_of(envelope)
        whose = Whose(task_id=envelope.id, root_id=envelope.root_id, request=request, added=outcome.added)
        rest: Sequence[Any] = embed.get("chain") or ()
        if outcome.state == State.SUCCESS:
            return _until_broker_is_back(
                lambda: self._maker.after_success(whose, embed, rest, joins, outcome.value)
            )
        error = outcome.exception or RuntimeError("the task has failed")
        return _until_broker_is_back(
            lambda: self._maker.after_failure(
                whose, embed.get("errbacks"), rest, joins, error, outcome.traceback_text
            )
        )

    def of_ignoring(self, envelope: Envelope, payload: Payload) -> Steps:
        """The steps after a task that raised `Ignore`."""
        whose = Whose(task_id=envelope.id, root_id=envelope.root_id)
        return self._maker.after_ignoring(whose, payload.embed.get("chain") or (), _joins_of(envelope))

    def of_replacement(
        self, envelope: Envelope, payload: Payload, request: Request, part: Signature
    ) -> Steps:
        """What takes the place of a task. Waits for the broker where it has to be asked."""
        whose = Whose(
            task_id=envelope.id,
            root_id=envelope.root_id,
            request=request,
            nesting=request.replaced_task_nesting + 1,
        )
        joins = _joins_of(envelope)
        return _until_broker_is_back(lambda: self._maker.in_place(whose, part, payload.embed, joins, request))

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
            steps = self.of_outcome(envelope, payload, _Failed(exception=error), request)
        except Exception:
            logger.exception("what follows task %s cannot be told of its end", printable(envelope.id))
            then()
            return
        self.publish(job, steps, then)

    def _payload_of(self, job: Job, envelope: Envelope) -> Payload | None:
        """The body of a refused message, where it is small and can be read; else only joins are told, by its headers."""
        try:
            return read_payload(envelope, job.delivery.body, accept=self._accept, limits=_REFUSED_LIMITS)
        except Exception:  # noqa: BLE001 - it is refused already
            return None

    # -- publishing

    def publish(self, job: Job, steps: Steps, then: Callable[[], None]) -> None:
        """Publish all of it, until it is confirmed, then call `then`, once, on some thread; joins are looked at before the job
        is acked, when its own outcome is stored, so that who gets the body's result finds those of the members."""
        if steps.joins:
            job.last_step = partial(self._joiner.look, steps.joins)
        waits = len(steps.messages) + len(steps.records)
        if not waits:
            then()
            return
        count = _Countdown(waits, then)
        for message in steps.messages:
            self._publish(message, count, _FIRST_PAUSE)
        for record, reply_to in steps.records:
            self._store(record, reply_to, count, _FIRST_PAUSE)

    def _publish(self, message: OutgoingMessage, count: _Countdown, pause: float) -> None:
        again = partial(self._publish, message, count, min(_MAX_PAUSE, pause * 2))
        report = partial(self._published, message, count, pause, again)
        try:
            self._app.transport.publish_nowait(message, report)
        except Exception as exc:  # noqa: BLE001 - kept and tried again
            report(exc)

    def _published(
        self,
        message: OutgoingMessage,
        count: _Countdown,
        pause: float,
        again: Callable[[], None],
        error: Exception | None,
    ) -> None:
        """On the I/O thread."""
        if error is None or is_too_late(message, error):
            count.down()
            return
        logger.warning(
            "a message of a workflow is not sent to %r yet, trying again in %.1f s: %s",
            message.routing_key, pause, error, extra={"action": "publish_again"},
        )  # fmt: skip
        self._call_later(pause, again)

    def _store(self, record: ResultRecord, reply_to: str, count: _Countdown, pause: float) -> None:
        def stored(error: Exception | None) -> None:
            if error is None or not isinstance(error, AmqpTasksError):
                count.down()
            else:
                again = partial(self._store, record, reply_to, count, min(_MAX_PAUSE, pause * 2))
                self._call_later(pause, again)

        try:
            self._app.backend.store_nowait(
                record, reply_to=reply_to, correlation_id=record.task_id, on_stored=stored
            )
        except Exception:
            logger.warning("the end of task %s cannot be told", printable(record.task_id), exc_info=True)
            count.down()


@dataclass(slots=True)
class _Failed:
    exception: Exception | None
    state: str = State.FAILURE
    value: Any = None
    traceback_text: str | None = None
    added: int = 0


def _joins_of(envelope: Envelope) -> tuple[Join, ...]:
    return tuple(
        Join(queue=queue, index=index, size=size) for queue, index, size in read_joins(envelope.headers)
    )


class _Countdown:
    """Calls `then` when as many things have happened as it waits for. Thread safety: any thread."""

    def __init__(self, waits: int, then: Callable[[], None]) -> None:
        self._waits, self._then = waits, then
        self._lock = threading.Lock()

    def down(self) -> None:
        with self._lock:
            self._waits -= 1
            is_last = self._waits == 0
        if is_last:
            self._then()


def _until_broker_is_back(make: Callable[[], Steps]) -> Steps:
    """The slot waits: its task has run, and nothing else of this process could be settled either."""
    pause = threading.Event()
    seconds = _FIRST_PAUSE
    while True:
        try:
            return make()
        except BrokerConnectionError as exc:
            logger.warning("what follows a task cannot be sent yet, trying again in %.1f s: %s", seconds, exc)
        pause.wait(seconds)
        seconds = min(_MAX_PAUSE, seconds * 2)
