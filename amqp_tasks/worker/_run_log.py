"""What a worker logs of the end of a run. Texts come from messages and users' code, so they are made printable."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import TaskPredicate
from amqp_tasks.message import bounded_repr, printable
from amqp_tasks.worker._accounts import error_text

if TYPE_CHECKING:
    from amqp_tasks.app import Task
    from amqp_tasks.app._execution import Outcome
    from amqp_tasks.message import Envelope
    from amqp_tasks.worker._job import Job

__all__ = ("log_outcome", "log_terminated")

logger = logging.getLogger(__name__)


def log_terminated(envelope: Envelope) -> None:
    """A run is ended from outside."""
    logger.warning(
        "Task %s[%s] is terminated", printable(envelope.shadow or envelope.task), printable(envelope.id),
        extra=_about("terminated", envelope),
    )  # fmt: skip


def log_outcome(job: Job, task: Task[..., Any], outcome: Outcome) -> None:
    """A run has ended, in whatever way; arguments that do not fit are told where they are refused."""
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
