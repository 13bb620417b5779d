"""What is to be published after a task in a workflow: a decision from what happened to messages, made in one place."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._errbacks import takes_exception
from amqp_tasks.canvas import Join, Message, Signature, abandoned, first_errbacks, launch, signature
from amqp_tasks.errors import (
    AmqpTasksError,
    BrokerConnectionError,
    MessageTooLarge,
    TaskError,
    UnroutableError,
)
from amqp_tasks.message import OutgoingMessage, ResultRecord, State, outcome_message, printable

if TYPE_CHECKING:
    from amqp_tasks.app import App, Request
    from amqp_tasks.canvas import Signature

__all__ = ("StepMaker", "Steps", "Whose", "is_too_late")

logger = logging.getLogger(__name__)

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """The task that something follows.

    Attributes:
        task_id: its id.
        root_id: of its workflow.
        request: of its run, for errbacks that take it.
        added: how many tasks it added to the header that it is in.
        nesting: how often a task under its id was replaced, with what is started.
    """

    task_id: str
    root_id: str | None
    request: Any = None
    added: int = 0
    nesting: int = 0


@dataclass(slots=True)
class Steps:
    """What is to be published, and then looked at.

    Attributes:
        messages: in their order.
        records: ends of tasks that will not run, each with the place where it is waited for.
        joins: those that get an outcome.
        children: ids of the tasks that the finished one sent.
    """

    messages: list[OutgoingMessage] = field(default_factory=list[OutgoingMessage])
    records: list[tuple[ResultRecord, str]] = field(default_factory=list[tuple[ResultRecord, str]])
    joins: list[Join] = field(default_factory=list[Join])
    children: list[str] = field(default_factory=list[str])


class StepMaker:
    """Thread safety: any thread; may wait for the broker, where a queue has to be there first."""

    def __init__(self, app: App) -> None:
        self._app = app

    def after_success(
        self, whose: Whose, embed: Mapping[str, Any], rest: Sequence[Any], joins: tuple[Join, ...], value: Any
    ) -> Steps:
        steps = Steps()
        for callback in embed.get("callbacks") or ():
            self.start(steps, whose, callback, args=(value,))
        if rest:
            *later, following = rest
            self.start(steps, whose, following, args=(value,), rest=later, joins=joins)
        else:
            self.tell_joins(steps, whose, joins, value=value)
        return steps

    def after_ignoring(self, whose: Whose, rest: Sequence[Any], joins: tuple[Join, ...]) -> Steps:
        """The steps after a task that gives no result by its own will: its workflow ends here, and no errback is called."""
        steps, error = Steps(), TaskError(f"task {whose.task_id} was ignored")
        for step in rest:
            self._end_members(steps, step, error)
        self.tell_joins(steps, whose, joins, error=error)
        return steps

    def in_place(
        self,
        whose: Whose,
        part: Signature,
        embed: Mapping[str, Any],
        joins: tuple[Join, ...],
        request: Request,
    ) -> Steps:
        """The steps of a task that is replaced: what takes its place has its id, and what follows it."""
        steps = Steps()
        given = {"task_id": whose.task_id, "reply_to": request.reply_to or ""}
        part = part.changed(options={**part.options, **given})
        for callback in embed.get("callbacks") or ():
            part = part.link(callback)
        for errback in embed.get("errbacks") or ():
            part = part.link_error(errback)
        rest = embed.get("chain") or ()
        self.start(steps, whose, part, rest=rest, joins=joins, place=(request.group, request.group_index))
        return steps

    def start(
        self,
        steps: Steps,
        whose: Whose,
        part: Any,
        *,
        args: Sequence[Any] = (),
        rest: Sequence[Any] = (),
        joins: tuple[Join, ...] = (),
        place: tuple[str | None, int | None] = (None, None),
    ) -> None:
        """Add what a part of the workflow begins with; one that cannot be sent is given up.

        Raises:
            BrokerConnectionError: the broker cannot be asked for what it needs.
        """
        try:
            frozen = self._app.workflows.freeze(signature(part), reply_to="")
            group_id, group_index = place
            plan = list(
                launch(frozen, args=args, rest=rest, joins=joins, group_id=group_id, group_index=group_index)
            )
            steps.messages += self._app.workflows.messages(
                plan, root_id=whose.root_id, parent_id=whose.task_id, timeout=_TIMEOUT, nesting=whose.nesting
            )
            steps.children += [item.call.id or "" for item in plan if isinstance(item, Message)]
        except BrokerConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - it came in a message, and may be anything
            logger.error(
                "what follows task %s cannot be sent: %s", printable(whose.task_id), printable(str(exc), 1024),
                extra={"action": "follow_up_refused", "task_id": whose.task_id},
            )  # fmt: skip
            self.give_up(steps, whose, part, rest, joins, exc)

    def after_failure(
        self,
        whose: Whose,
        errbacks: Any,
        rest: Sequence[Any],
        joins: tuple[Join, ...],
        error: Exception,
        traceback: str | None = None,
    ) -> Steps:
        """The steps after a task that has failed, or was not run."""
        steps = Steps()
        for step in rest:
            self._end_members(steps, step, error)
        self._call_errbacks(steps, whose, errbacks, error, traceback)
        self.tell_joins(steps, whose, joins, error=error)
        return steps

    def give_up(
        self,
        steps: Steps,
        whose: Whose,
        part: Any,
        rest: Sequence[Any],
        joins: tuple[Join, ...],
        error: Exception,
    ) -> None:
        """A part of the workflow, and all that follows it, will not run: say so to all who wait for any of it."""
        errbacks: list[Any] = []
        first_id = whose.task_id
        try:
            first_id, errbacks = first_errbacks(signature(part))
        except Exception:  # noqa: BLE001 - it came in a message, and may be anything
            logger.warning("a part of a workflow is no signature", extra={"action": "follow_up_refused"})
        for step in (part, *reversed(rest)):
            self._end_members(steps, step, error)
        lost = Whose(task_id=first_id, root_id=whose.root_id, request=whose.request)
        self._call_errbacks(steps, lost, errbacks, error, None)
        self.tell_joins(steps, lost, joins, error=error)

    def _end_members(self, steps: Steps, part: Any, error: Exception) -> None:
        try:
            lost = list(abandoned(signature(part)))
        except Exception:  # noqa: BLE001 - it came in a message, and may be anything
            return
        now = datetime.now(UTC)
        for member in lost:
            record = ResultRecord(task_id=member.task_id, status=State.FAILURE, result=error, date_done=now)
            if member.reply_to:
                steps.records.append((record, member.reply_to))

    def _call_errbacks(
        self, steps: Steps, whose: Whose, errbacks: Any, error: Exception, traceback: str | None
    ) -> None:
        for errback in errbacks or ():
            try:
                call = signature(errback).bound_to(self._app)
            except AmqpTasksError:
                continue
            if takes_exception(self._app, call):
                _run_here(call, whose, error, traceback)
            else:
                self.start(steps, whose, call, args=(whose.task_id,))

    def tell_joins(
        self,
        steps: Steps,
        whose: Whose,
        joins: Iterable[Join],
        *,
        value: Any = None,
        error: Exception | None = None,
    ) -> None:
        """Add an outcome for each join."""
        for join in joins:
            steps.messages.append(self._outcome(whose, join, value, error))
            steps.joins.append(join)

    def _outcome(self, whose: Whose, join: Join, value: Any, error: Exception | None) -> OutgoingMessage:
        """One that cannot be sent becomes a failure that says so."""
        tell = partial(outcome_message, join.queue, join.index, whose.task_id, added=whose.added)
        try:
            message = tell(value=value, error=error)
        except AmqpTasksError as exc:
            return tell(error=exc)
        most, size = self._app.settings.app.max_message_bytes, len(message.body)
        if size <= most:
            return message
        return tell(
            error=MessageTooLarge(f"the outcome for a chord has {size} bytes, max_message_bytes is {most}")
        )


def is_too_late(message: OutgoingMessage, error: Exception) -> bool:
    """Whether it was an outcome for a join that is gone: the join had it before, or was given up."""
    return isinstance(error, UnroutableError) and message.properties.type == "join-outcome"


def _run_here(call: Signature, whose: Whose, error: Exception, traceback: str | None) -> None:
    try:
        call(whose.request, error, traceback)
    except BaseException:
        # The others still run, and the failure is told.
        logger.exception(
            "errback %s of task %s failed", printable(call.task), printable(whose.task_id),
            extra={"action": "errback_failed", "task_id": whose.task_id},
        )  # fmt: skip
