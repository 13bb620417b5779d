"""What a delivery must pass before it may wait for a slot. Looks at sizes, properties and headers, never at the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import SIGNED_AS_TASK, DeadLetterReason, Envelope, printable, read_envelope

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.message import KeyRing, Payload
    from amqp_tasks.transport import Delivery

__all__ = ("Guards", "check_chord", "check_expiry")


_NO_STORE = "that stock Celery counts in a result store, and there is none here: send the chord with amqp-tasks, or move the message to a queue of stock workers"
_OF_CELERY = {
    "celery.chord_unlock": (
        DeadLetterReason.CHORD_REFUSED,
        f"it waits for the members of a chord {_NO_STORE}",
    ),
    **{
        f"celery.{kind}": (
            DeadLetterReason.UNKNOWN_TASK,
            f"celery.{kind} is no task here, and none that Celery's clients send: send the {kind} itself, {kind}(...).delay()",
        )
        for kind in ("group", "chain", "chord")
    },
}
"""Celery's built-in tasks that are not run here: why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The checks of one worker.

    Attributes:
        tasks: the registered tasks by name.
        accept: content types whose bodies may be decoded.
        max_message_bytes: of a body as received.
        now: the present (aware).
        is_revoked: whether a task is revoked, by its id or a stamp.
        keys: by which signatures are checked; None: they are not.
    """

    tasks: Mapping[str, Task[..., Any]]
    accept: frozenset[str]
    max_message_bytes: int
    now: Callable[[], datetime]
    is_revoked: Callable[[Envelope], bool]
    keys: KeyRing | None = None

    def check_size(self, delivery: Delivery) -> None:
        """Before anything else is looked at.

        Raises:
            MalformedMessage: `too-large`.
        """
        if len(delivery.body) > self.max_message_bytes:
            raise MalformedMessage(
                DeadLetterReason.TOO_LARGE,
                f"{len(delivery.body)} bytes, at most {self.max_message_bytes} are accepted (max_message_bytes)",
            )

    def check_signature(self, delivery: Delivery) -> None:
        """Before anything that it says is heeded: who it is, or who waits for it.

        Raises:
            MalformedMessage: `unsigned`, `bad-signature`, or `bad-headers`.
        """
        if self.keys is not None:
            self.keys.check(delivery.properties, delivery.body, SIGNED_AS_TASK)

    def read(self, delivery: Delivery) -> Envelope:
        """The readable headers.

        Raises:
            MalformedMessage: `missing-header` or `bad-headers`.
        """
        return read_envelope(delivery.properties)

    def find_task(self, envelope: Envelope) -> Task[..., Any]:
        """The task that it is for, when this worker can run it at all.

        Raises:
            MalformedMessage: `unknown-task` or `content-type-refused`.
        """
        # Looked up in the registry only: a name from a message never imports anything.
        task = self.tasks.get(envelope.task)
        if task is None and envelope.task in _OF_CELERY:
            raise self._refusal(*_OF_CELERY[envelope.task], envelope)
        if task is None:
            raise self._refusal(
                DeadLetterReason.UNKNOWN_TASK,
                f"the worker that got it has no task {printable(envelope.task)!r}: import its module there (-I, include), or "
                "send it to the queue of a worker that has it",
                envelope,
            )
        if envelope.content_type not in self.accept:
            accepted = ", ".join(sorted(self.accept))
            raise self._refusal(
                DeadLetterReason.CONTENT_TYPE_REFUSED,
                f"content type {printable(envelope.content_type)} is not accepted here (accepted: {accepted})",
                envelope,
            )
        return task

    def check_start(self, envelope: Envelope) -> None:
        """Refuse what should not begin any more. Asked again when a slot is about to run it, and for a redelivery only then:
        before that it is not known whether its first run goes on.

        Raises:
            MalformedMessage: `revoked` or `expired`.
        """
        if self.is_revoked(envelope):
            raise self._refusal(DeadLetterReason.REVOKED, "revoked", envelope)
        if envelope.expires is not None:
            check_expiry(envelope, self.now())

    @staticmethod
    def _refusal(reason: DeadLetterReason, detail: str, envelope: Envelope) -> MalformedMessage:
        return MalformedMessage(reason, detail, task_id=envelope.id)


def check_expiry(envelope: Envelope, now: datetime) -> None:
    """Refuse what should have been started before now.

    Raises:
        MalformedMessage: `expired`.
    """
    if envelope.expires is not None and envelope.expires <= now:
        raise MalformedMessage(
            DeadLetterReason.EXPIRED,
            f"expired at {envelope.expires.isoformat()}, came up at {now.isoformat()}",
            task_id=envelope.id,
        )


def check_chord(payload: Payload) -> None:
    """Refuse a member of a chord of stock Celery: run here, its end would be counted nowhere, and the body never be run.

    Raises:
        MalformedMessage: `chord-refused`.
    """
    if payload.embed.get("chord"):
        raise MalformedMessage(
            DeadLetterReason.CHORD_REFUSED,
            f"it is in the header of a chord {_NO_STORE}",
        )
