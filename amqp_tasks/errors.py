"""Every error that amqp-tasks raises, by what the caller can do about it.

    AmqpTasksError
    ├── ConfigurationError (ValueError)     fix the configuration
    │   ├── SettingsError                   one or several settings are wrong; all are listed
    │   ├── AppNotFound                     `-A` names no app
    │   ├── UnknownQueue                    a queue that is neither configured nor may be created
    │   ├── TopologyMismatch                the broker holds a queue or exchange with other arguments
    │   ├── UnsupportedTransport            a URL scheme nobody serves
    │   └── ResultUnavailable               this backend cannot know that result
    ├── BrokerConnectionError (ConnectionError)   no usable connection; try again unless `is_final`
    │   ├── BrokerUnreachable
    │   ├── BrokerAuthenticationError       credentials refused: final
    │   └── BrokerAccessError               virtual host unknown or not permitted: final
    ├── BrokerOperationError                the broker refused a method (`reply_code`, `reply_text`)
    │   └── QueueNotRunning                 a queue exists and cannot be had now: try again, or see to its node
    ├── MigrationRefused                    a queue cannot be migrated now: it is consumed, or messages keep arriving
    ├── PublishError                        a message was not accepted; one of exactly two branches
    │   ├── NotSent                         certainly not stored: sending again cannot double it
    │   │   ├── UnroutableError             returned: no queue is bound
    │   │   ├── PublishNacked               the broker said no (basic.nack)
    │   │   ├── BrokerBlocked               a memory or disk alarm outlasted the deadline
    │   │   ├── MessageTooLarge
    │   │   ├── UserIdRefused               `user_id` is not the user of the connection
    │   │   ├── PublishRefused              the broker takes no such message from this user
    │   │   └── DepthLimitExceeded          tasks that call tasks, more than `task_depth_limit` deep
    │   └── SendUnknown                     may be stored: send again with the same task id
    ├── BulkSendError                       some calls of a bulk send failed; an outcome for each
    ├── EncodeError (TypeError)             an argument or result that cannot be serialized
    ├── InvalidArguments (TypeError)        a call that does not fit the task's signature
    ├── MalformedMessage                    a received message that must not run; carries its dead-letter reason
    ├── ClosedError                         used after close()
    ├── TaskPredicate                       raised in a task to say what becomes of it; no error
    │   ├── Retry                           run it again; made by `Task.retry`
    │   ├── Snooze                          run it again later, without counting that
    │   ├── Ignore                          forget it: no result, no further run
    │   ├── Replaced                        a signature takes its place; made by `Task.replace`
    │   └── Reject                          to the dead letters, or back to its queue
    └── TaskError                           the outcome of a task, raised by `AsyncResult.get()`
        ├── RemoteError                     the task raised; type, message and traceback as data
        ├── TaskRevokedError
        │   └── TaskExpired                 not started before its `expires`
        ├── MaxRetriesExceededError         retried too often, for no reason that was given
        ├── ChordError                      a member of its chord failed
        ├── StepNotRun                      a step of its workflow that it needs failed
        ├── StepLost                        a step of which nothing has come for too long
        ├── WorkflowFailed                  steps of a workflow failed; says which, and which were not run
        ├── IncompleteStream                what follows a task was asked for before it had ended
        ├── TaskDied                        its worker process died too often
        ├── SoftTimeLimitExceeded           raised in a task that runs longer than its soft limit
        ├── TimeLimitExceeded               it ran longer than its hard limit, so its process was ended
        ├── NotRegistered                   no worker knows the task's name
        ├── ResultLost                      the reply queue was deleted while waiting
        └── ResultTimeout (TimeoutError)    `get(timeout=…)` ended first; the task goes on

Facts are attributes and the message is built from them, so that errors pickle and compare by what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

from amqp_routing import FactualError

__all__ = (
    "AmqpTasksError",
    "AppNotFound",
    "BrokerAccessError",
    "BrokerAuthenticationError",
    "BrokerBlocked",
    "BrokerConnectionError",
    "BrokerOperationError",
    "BrokerUnreachable",
    "BulkSendError",
    "ChordError",
    "ClosedError",
    "ConfigurationError",
    "DepthLimitExceeded",
    "EncodeError",
    "Ignore",
    "IncompleteStream",
    "InvalidArguments",
    "MalformedMessage",
    "MaxRetriesExceededError",
    "MessageTooLarge",
    "MigrationRefused",
    "NotRegistered",
    "NotSent",
    "PublishError",
    "PublishNacked",
    "PublishRefused",
    "QueueNotRunning",
    "Reject",
    "RemoteError",
    "Replaced",
    "ResultLost",
    "ResultTimeout",
    "ResultUnavailable",
    "Retry",
    "SendUnknown",
    "SettingsError",
    "Snooze",
    "SoftTimeLimitExceeded",
    "StepLost",
    "StepNotRun",
    "TaskDied",
    "TaskError",
    "TaskExpired",
    "TaskPredicate",
    "TaskRevokedError",
    "TimeLimitExceeded",
    "TopologyMismatch",
    "UnknownQueue",
    "UnroutableError",
    "UnsupportedTransport",
    "UserIdRefused",
    "WorkflowFailed",
)


class AmqpTasksError(FactualError):
    """The root of the tree."""


class ConfigurationError(AmqpTasksError, ValueError):
    """Something in the set-up must be changed before this can work."""


class SettingsError(ConfigurationError):
    """One or several settings are wrong; the message lists every fault with its remedy, a line each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class AppNotFound(ConfigurationError):
    """`-A` (or AMQP_TASKS_APP) names nothing that is an App."""


class UnknownQueue(ConfigurationError):
    """A queue that is not configured and may not be created."""

    def __init__(self, queue_name: str, *, known: tuple[str, ...] = (), hint: str = "") -> None:
        self.queue_name, self.known = queue_name, known
        listed = f" (known: {', '.join(known)})" if known else ""
        super().__init__(f"unknown queue {queue_name!r}{listed}{'; ' + hint if hint else ''}")


class TopologyMismatch(ConfigurationError):
    """The broker holds queues or exchanges with other arguments than ours; `differences` has a line each.

    The message is the only difference, or a line that counts them and a line for each.
    """

    def __init__(self, differences: tuple[str, ...]) -> None:
        self.differences = differences
        count = f"{len(differences)} arguments on the broker differ from ours (`amqp-tasks topology check` lists all):"
        super().__init__("\n".join(differences if len(differences) == 1 else (count, *differences)))


class UnsupportedTransport(ConfigurationError):
    """A broker URL whose scheme no transport serves."""


class ResultUnavailable(ConfigurationError):
    """The result cannot be known here: no backend, or another process's id with `rpc://`."""


class BrokerConnectionError(AmqpTasksError, ConnectionError):
    """No usable connection to the broker.

    Attributes:
        url: the masked URL of the broker that was tried last.
        is_final: trying again without changing something is pointless.
        is_attempting: the time was up while an attempt was still under way; none had failed yet.
        is_silence: there is a connection, and the broker did not answer one question on it.
    """

    is_final = False
    is_attempting = False
    is_silence = False

    def __init__(self, message: str, *, url: str = "") -> None:
        self.url = url
        super().__init__(message)


class BrokerUnreachable(BrokerConnectionError):
    """Nothing answers at any of the broker's addresses."""


class BrokerAuthenticationError(BrokerConnectionError):
    """The broker refused user name and password."""

    is_final = True


class BrokerAccessError(BrokerConnectionError):
    """The virtual host does not exist, or this user may not enter it."""

    is_final = True


class BrokerOperationError(AmqpTasksError):
    """The broker closed the channel over one method, e.g. 403 access refused or 404 not found."""

    def __init__(self, message: str, *, reply_code: int = 0, reply_text: str = "") -> None:
        self.reply_code, self.reply_text = reply_code, reply_text
        super().__init__(message)


class QueueNotRunning(BrokerOperationError):
    """The broker knows the queue, and its node is down or has not brought it up yet: nothing can be said of what it holds."""

    def __init__(self, queue_name: str, *, reply_code: int, reply_text: str) -> None:
        self.queue_name = queue_name
        super().__init__(
            f"queue {queue_name!r} exists and does not run now: try again in some seconds, or see to its node (the broker answered"
            f" {reply_code} {reply_text})",
            reply_code=reply_code,
            reply_text=reply_text,
        )


class MigrationRefused(AmqpTasksError):
    """A queue is not migrated now; everything is in place to do it later.

    Attributes:
        queue_name: which.
        reason: why, and what to do.
    """

    def __init__(self, queue_name: str, reason: str) -> None:
        self.queue_name, self.reason = queue_name, reason
        super().__init__(f"queue {queue_name!r} is not migrated: {reason}")


class PublishError(AmqpTasksError):
    """A message was not accepted. Always a `NotSent` or a `SendUnknown`."""

    exchange: str = ""
    routing_key: str = ""
    message_id: str = ""

    def about(self, *, exchange: str, routing_key: str, message_id: str) -> Self:
        """Note which message this error is about; returns the error."""
        self.exchange, self.routing_key, self.message_id = exchange, routing_key, message_id
        return self


class NotSent(PublishError):
    """Certainly not stored by the broker. The cause, when there is one, is in `__cause__`.

    Attributes:
        is_final: trying again without changing something is pointless.
    """

    is_final = False


class UnroutableError(NotSent):
    """The broker returned the message: no queue is bound for it (basic.return)."""


class PublishNacked(NotSent):
    """The broker refused the message (basic.nack), e.g. a full queue with `overflow=reject-publish`."""


class BrokerBlocked(NotSent):
    """A resource alarm kept the broker from taking messages until the deadline; `reason` is the broker's."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


class MessageTooLarge(NotSent):
    """The message exceeds `max_message_bytes` or the broker's own limit."""

    is_final = True


class UserIdRefused(NotSent):
    """The call's `user_id` is not the user that the connection was opened as, and RabbitMQ vouches for that property."""

    is_final = True


class PublishRefused(NotSent):
    """The broker closed the channel over this message: the user may not write to its exchange (403), or it takes none of this kind (406)."""

    is_final = True


class DepthLimitExceeded(NotSent):
    """A task called another one although it stands `task_depth_limit` calls below the first."""

    is_final = True

    def __init__(self, task_name: str, limit: int) -> None:
        self.task_name, self.limit = task_name, limit
        super().__init__(
            f"task {task_name!r} stands {limit} calls below the first one, and task_depth_limit is {limit}: does it "
            "call itself for ever? Else raise task_depth_limit, or set it to None for no limit"
        )


class SendUnknown(PublishError):
    """The deadline passed after the message was written: it may be stored. Resend with the same task id."""


class BulkSendError(AmqpTasksError):
    """Some calls of a bulk send were not sent; the others were, and their results can be waited for.

    Attributes:
        outcomes: one per call, in order: None when it was sent, else the error.
        results: one AsyncResult per call, in order; None where a call could not even be made into a message.
        not_sent: how many were certainly not stored.
        send_unknown: how many may be stored.
    """

    def __init__(self, outcomes: Sequence[Exception | None], results: Sequence[Any]) -> None:
        self.outcomes, self.results = tuple(outcomes), tuple(results)
        failed = [outcome for outcome in self.outcomes if outcome is not None]
        self.send_unknown = sum(isinstance(outcome, SendUnknown) for outcome in failed)
        self.not_sent = len(failed) - self.send_unknown
        super().__init__(
            f"{len(failed)} of {len(self.outcomes)} calls failed ({self.not_sent} not sent, {self.send_unknown} unknown)"
            f"; the first: {failed[0] if failed else 'none'}"
        )


class EncodeError(AmqpTasksError, TypeError):
    """A value that the chosen serializer cannot write; the message names the argument and its type."""


class InvalidArguments(AmqpTasksError, TypeError):
    """The arguments of a call do not fit the task's signature or annotations."""


class MalformedMessage(AmqpTasksError):
    """A received message that must not be run.

    Attributes:
        reason: the short, stable word that dead letters carry in `x-error-reason`, e.g. `bad-json`.
        task_id: the id, when the headers were readable.
    """

    def __init__(self, reason: str, detail: str, *, task_id: str = "") -> None:
        self.reason, self.detail, self.task_id = reason, detail, task_id
        super().__init__(f"{reason}: {detail}")


class ClosedError(AmqpTasksError):
    """Used after it was closed by us."""


class TaskPredicate(AmqpTasksError):
    """Raised in a task to say what becomes of it; control flow, never logged as an error."""


class Retry(TaskPredicate):
    """The task runs again later, counted in `request.retries`. `Task.retry` makes and raises it.

    Raising one of your own is the same as `self.retry(exc=..., countdown=when)`, or `eta=when` for a datetime.

    Attributes:
        message: said instead of the text made from the other two.
        exc: why, if there is an exception.
        when: seconds from now, or a datetime; None for the task's `default_retry_delay`.
        is_eager: it happened in `apply()` or under `task_always_eager`.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: Exception | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
    ) -> None:
        self.message, self.exc, self.when, self.is_eager = message, exc, when, is_eager
        at = f"at {when}" if isinstance(when, datetime) else f"in {when}s"
        super().__init__(message or f"Retry{'' if when is None else ' ' + at}{f': {exc!r}' if exc else ''}")


class Snooze(TaskPredicate):
    """The task runs again under the same id after `seconds`; `request.retries` stays as it is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"Snooze for {seconds}s")


class Ignore(TaskPredicate):
    """The task is over: its message is acknowledged and no result is sent. Who waits for one waits in vain."""


class Replaced(TaskPredicate):
    """The task's place is taken by a signature, under its id. `Task.replace` raises it.

    Attributes:
        signature: what runs in its place.
    """

    def __init__(self, signature: Any) -> None:
        self.signature = signature
        # No arguments: this is logged, and they may be secrets.
        name, task_id = getattr(signature, "task", type(signature).__name__), getattr(signature, "id", None)
        super().__init__(f"replaced by {name}{f'[{task_id}]' if task_id else ''}")


class Reject(TaskPredicate):
    """The message is set aside in the dead letters, and who waits is told; or it goes back to its queue.

    Attributes:
        reason: why; text or an exception.
        requeue: back to the queue, to be delivered again.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason, self.requeue = reason, requeue
        super().__init__(f"{reason or 'no reason given'}{', back to its queue' if requeue else ''}")


class TaskError(AmqpTasksError):
    """The outcome of a task that did not succeed; raised by `AsyncResult.get()`."""

    task_id: str = ""


class RemoteError(TaskError):
    """The task raised an exception of a type that is not re-created here.

    Exceptions travel as data and are never imported by a name in a message; see `result_exceptions`.

    Attributes:
        exc_type: the class name as the worker wrote it.
        exc_module: its module.
        exc_args: the arguments, as far as they were JSON.
        remote_traceback: the worker's traceback as text, or None.
    """

    def __init__(
        self,
        exc_type: str,
        exc_args: tuple[Any, ...] = (),
        *,
        exc_module: str = "",
        remote_traceback: str | None = None,
    ) -> None:
        self.exc_type, self.exc_args, self.exc_module = exc_type, exc_args, exc_module
        self.remote_traceback = remote_traceback
        said = exc_args[0] if len(exc_args) == 1 else (exc_args or "")
        super().__init__(f"{exc_type}: {said}" if said != "" else exc_type)


class TaskRevokedError(TaskError):
    """The task was revoked before it finished."""


class TaskExpired(TaskRevokedError):
    """The task was not started before its `expires`."""


class MaxRetriesExceededError(TaskError):
    """The task asked for more retries than `max_retries`, and gave no exception to raise in place of this one.

    Attributes:
        task_args: positional arguments that the next run would have had; known in the worker only.
        task_kwargs: keyword arguments likewise.
    """

    task_args: Sequence[Any] = ()
    task_kwargs: Mapping[str, Any] = MappingProxyType({})


class ChordError(TaskError):
    """A task in the header of a chord has failed, so the body is not run; says which, and what it raised.

    That is its `__cause__` as well, if it is not very large; it has no cause where outcomes are lost.
    """


_MAX_SAID = 1024


class StepNotRun(TaskError):
    """A step of a `Workflow` is not run, as one that it depends on has failed; says which, and what it raised."""

    @classmethod
    def because_of(cls, step: str, error: object) -> Self:
        """The one for what needs a step that has failed with `error`."""
        try:
            said = str(error)
        except (Exception, SystemExit):  # noqa: BLE001 - a user's __str__ may raise anything
            said = "(its text cannot be made)"
        return cls(f"step {step!r} has failed: {type(error).__name__}: {said[:_MAX_SAID]}")


class StepLost(TaskError):
    """Nothing has come of a step of a `Workflow` for `task_chord_timeout` seconds, so it is taken for lost."""


class WorkflowFailed(TaskError):
    """Steps of a `Workflow` have failed; those that do not need them went on.

    Attributes:
        workflow_id: of the workflow, for `amqp-tasks workflow resume`.
        failed: what each failed step raised, by its name.
        not_run: names of the steps that were not run, as they need one that failed.
        succeeded: names of the steps that have ended well.
    """

    def __init__(
        self,
        workflow_id: str,
        *,
        failed: Mapping[str, Exception],
        not_run: Sequence[str],
        succeeded: Sequence[str],
    ) -> None:
        self.workflow_id, self.failed = workflow_id, dict(failed)
        self.not_run, self.succeeded = tuple(not_run), tuple(succeeded)
        raised = ", ".join(f"{name} ({type(error).__name__}: {error})" for name, error in self.failed.items())
        super().__init__(
            f"workflow {workflow_id}: failed: {raised or 'none'}; not run: {', '.join(self.not_run) or 'none'}"
            f"; succeeded: {', '.join(self.succeeded) or 'none'}"
        )


class TaskDied(TaskError):
    """The task's worker process died `task_crash_limit` times while running it; it lies in the dead letters."""


class SoftTimeLimitExceeded(TaskError):
    """Raised in a task that has run as long as its soft limit; it may clean up and return, which is a success.

    As in Celery, its argument is the limit in seconds; there may be none.
    """

    def __str__(self) -> str:
        return _limit_text("soft", self.args) or super().__str__()


class TimeLimitExceeded(TaskError):
    """The task had run as long as its hard limit, so its process was ended. Its argument is the limit in seconds."""

    def __str__(self) -> str:
        return _limit_text("hard", self.args) or super().__str__()


def _limit_text(kind: str, args: tuple[Any, ...]) -> str:
    if not args:
        return f"{kind} time limit exceeded"
    return f"{kind} time limit of {args[0]:g} s exceeded" if isinstance(args[0], int | float) else ""


class IncompleteStream(TaskError):
    """What followed a task was asked for before it had ended."""


class NotRegistered(TaskError, LookupError):
    """No task of that name is registered where it was looked up."""


class ResultLost(TaskError):
    """The reply queue disappeared from the broker while somebody waited; the task itself may have run."""


class ResultTimeout(TaskError, TimeoutError):
    """`get(timeout=…)` ended before the result came. The task goes on; ask again."""
