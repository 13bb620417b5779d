"""Telling those who follow a task how it has ended: where it has told of its progress, or lies among the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import Ignore, Retry
from amqp_tasks.message import DeadLetterReason, bounded_repr
from amqp_tasks.worker._accounts import UNWANTED, error_text

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.app._execution import Outcome
    from amqp_tasks.errors import MalformedMessage
    from amqp_tasks.events import Events
    from amqp_tasks.message import Envelope

__all__ = ("Ends",)

_MAX_TEXT = 4096


class Ends:
    """Costs a look at a dictionary where nothing was told. Thread safety: any thread.

    Args:
        events: tells them.
        hostname: the node.
        call_later: runs something on the control thread after some seconds.
    """

    def __init__(
        self, events: Events, hostname: str, call_later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._events, self._hostname, self._call_later = events, hostname, call_later

    def of_run(self, envelope: Envelope, task: Task[..., Any], outcome: Outcome) -> None:
        """A run has ended, and has not failed; what was not run at all, and what is put back, is told by others."""
        events, error = self._events, outcome.exception
        if not events.has_told(envelope.id):
            return
        if error is None:
            shown = bounded_repr(outcome.retval, task.resultrepr_maxsize)
            events.end("task-succeeded", envelope.id, self._hostname, result=shown, runtime=outcome.runtime)
        elif isinstance(error, Retry):
            events.tell("task-retried", envelope.id, self._hostname, exception=_shown(error.exc or error))
        elif isinstance(error, Ignore):
            events.end("task-ignored", envelope.id, self._hostname)

    def of_failure(self, envelope: Envelope, error: BaseException) -> None:
        """It has failed, and whoever waits is told."""
        self._events.end("task-failed", envelope.id, self._hostname, exception=_shown(error))

    def of_death(self, envelope: Envelope, queue_name: str, error: MalformedMessage) -> None:
        """It goes to the dead letters. Any thread."""
        cause = error.__cause__ if error.reason == DeadLetterReason.FAILED else None
        tell = partial(
            self._events.tell_death,
            envelope.id,
            self._hostname,
            name=envelope.task,
            queue=queue_name,
            reason=str(error.reason),
            exception=_refusal(error) if cause is None else _shown(cause),
        )
        if self._events.is_ready:
            tell()
        else:
            self._call_later(0.0, tell)

    def of_refusal(self, envelope: Envelope, error: MalformedMessage) -> None:
        """It will not be run, or not again, and is no dead letter."""
        events = self._events
        if error.reason in UNWANTED:
            is_expired = error.reason == DeadLetterReason.EXPIRED
            events.end("task-revoked", envelope.id, self._hostname, expired=is_expired)
        else:
            events.end("task-failed", envelope.id, self._hostname, exception=_refusal(error))


def _refusal(error: MalformedMessage) -> str:
    return f"{error.reason}: {error.detail}"[:_MAX_TEXT]


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}({error_text(error)})"[:_MAX_TEXT]
