"""What is to be published after a task in a workflow: a decision from what happened to messages, made in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from amqp_tasks.app._errbacks import errback_call, run_errback, separate, takes_exception
from amqp_tasks.app._request import Request
from amqp_tasks.canvas import (
    Join,
    Message,
    Signature,
    abandoned,
    chain,
    chord,
    first_errbacks,
    launch,
    signature,
)
from amqp_tasks.errors import (
    AmqpTasksError,
    BrokerConnectionError,
    MessageTooLarge,
    StepNotRun,
    TaskError,
)
from amqp_tasks.message import (
    SNOOZES_HEADER,
    OutgoingMessage,
    ResultRecord,
    State,
    StepMark,
    bounded_repr,
    derived_ids,
    first_step,
    outcome_message,
    printable,
    read_mark,
)
from amqp_tasks.worker._accounts import error_text
from amqp_tasks.worker._unsent import follow_up_text, unsent_letter

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.canvas import Signature

__all__ = ("StepMaker", "Steps", "Whose")

logger = logging.getLogger(__name__)

_TIMEOUT = 5.0
"""Seconds for one attempt to have a queue there; who waits for the broker asks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """The task that something follows.

    Attributes:
        task_id: its id; empty for a client, where that has sent the join that something follows.
        root_id: of its workflow.
        request: for errbacks that take it; None where nothing but its ids is known.
        in_slot: this is what its run in this slot comes to, so errbacks that take the request are called here.
        added: how many tasks it added to the header that it is in.
        nesting: how often a task under its id was replaced, with what is started.
        snoozes: of its run; what takes its place counts one more, which tells their runs apart.
        mark: which named step it is, if it is one.
        of_run: where it is a join of named steps: see `StepMark.run`.
        kept_as: where it is a step that failed and is kept in the dead letters: see `JoinOutcome.kept_as`.
        queue_name: the queue that brought it; what cannot be sent is kept in its dead letters.
    """

    task_id: str
    root_id: str | None
    request: Request | None = None
    in_slot: bool = False
    added: int = 0
    nesting: int = 0
    snoozes: int = 0
    mark: StepMark | None = None
    of_run: str = ""
    kept_as: str = ""
    queue_name: str = ""

    @classmethod
    def of_join(cls, definition: Mapping[str, Any], queue_name: str) -> Whose:
        """What a join starts follows the task that had sent it; `queue_name` is that of the task that brought its last outcome."""
        first = first_step(definition)
        return cls(
            task_id=str(definition.get("parent_id") or ""),
            root_id=definition.get("root_id"),
            of_run=first.run if first is not None else "",
            queue_name=queue_name,
        )

    @property
    def run(self) -> str:
        """Of the workflow of named steps; empty where it is not known."""
        return self.mark.run if self.mark is not None else self.of_run

    @property
    def parent_id(self) -> str | None:
        """Of what follows it."""
        return self.task_id or None

    def passed_on(self, error: Exception) -> Exception:
        """What all that follows it is told of its failure."""
        return error if self.mark is None else StepNotRun.because_of(self.mark.step, error)


@dataclass(slots=True)
class Steps:
    """What is to be published, and then looked at.

    Attributes:
        messages: in their order.
        instead: by the place of a message, what is to be published when the broker refuses it for good.
        records: ends of tasks that will not run, each with the place where it is waited for.
        joins: those that get an outcome.
        children: ids of the tasks that the finished one sent.
        calls: of errbacks, to be made in the slot, once: users' code is in none of what is repeated until the broker is back.
    """

    messages: list[OutgoingMessage] = field(default_factory=list[OutgoingMessage])
    instead: dict[int, Instead] = field(default_factory=dict[int, "Instead"])
    records: list[tuple[ResultRecord, str]] = field(default_factory=list[tuple[ResultRecord, str]])
    joins: list[Join] = field(default_factory=list[Join])
    children: list[str] = field(default_factory=list[str])
    calls: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def add(self, message: OutgoingMessage, instead: Instead | None = None) -> None:
        """Add a message, and what is published when it is refused."""
        if instead is not None:
            self.instead[len(self.messages)] = instead
        self.messages.append(message)


Instead: TypeAlias = "Callable[[Exception], Steps]"


class StepMaker:
    """Thread safety: any thread; may wait for the broker, where a queue has to be there first.

    Args:
        app: whose tasks they are.
        hostname: the node.
        has_dead_letters: whether what cannot be sent is kept.
    """

    def __init__(self, app: App, *, hostname: str, has_dead_letters: bool) -> None:
        self._app, self._hostname, self._has_dead_letters = app, hostname, has_dead_letters

    def after_success(
        self, whose: Whose, embed: Mapping[str, Any], rest: Sequence[Any], joins: tuple[Join, ...], value: Any
    ) -> Steps:
        steps = Steps()
        for number, callback in enumerate(embed.get("callbacks") or ()):
            self.start(steps, whose, callback, f"callback {number}", args=(value,))
        if rest:
            *later, following = rest
            self.start(steps, whose, following, "next", args=(value,), rest=later, joins=joins)
        else:
            self.tell_joins(steps, whose, joins, value=value)
        return steps

    def after_ignoring(self, whose: Whose, rest: Sequence[Any], joins: tuple[Join, ...]) -> Steps:
        """The steps after a task that gives no result by its own will: its workflow ends here, and no errback is called."""
        steps, error = Steps(), whose.passed_on(TaskError(f"task {whose.task_id} was ignored"))
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
        given: dict[str, Any] = {"task_id": whose.task_id, "reply_to": request.reply_to or ""}
        # Else a worker that gets it redelivered could take it for the run that it has finished with, and ack it.
        headers: dict[str, Any] = {SNOOZES_HEADER: whose.snoozes + 1}
        if whose.mark is not None and part.subtask_type is None:
            headers |= whose.mark.header
        part = _with_headers(part, headers)
        part = part.changed(options={**part.options, **given})
        if request.stamps:
            part = part.with_stamps(request.stamps)
        for number, callback in enumerate(embed.get("callbacks") or ()):
            part = self._linked(steps, whose, part.link, callback, f"callback {number}") or part
        for number, errback in enumerate(embed.get("errbacks") or ()):
            part = self._linked(steps, whose, part.link_error, errback, f"errback {number}") or part
        rest = embed.get("chain") or ()
        group = (request.group, request.group_index)
        self.start(steps, whose, part, f"replacement {whose.nesting}", rest=rest, joins=joins, group=group)
        return steps

    def _linked(
        self, steps: Steps, whose: Whose, link: Callable[[Any], Signature], added: Any, place: str
    ) -> Signature | None:
        """A part with a further callback or errback; None where that cannot be read, and is kept."""
        try:
            return link(added)
        except Exception as exc:  # noqa: BLE001 - it came in a message, and may be anything
            self._keep(steps, whose, place, added, (), exc)
            return None

    def start(
        self,
        steps: Steps,
        whose: Whose,
        part: Any,
        place: str,
        *,
        args: Sequence[Any] = (),
        rest: Sequence[Any] = (),
        joins: tuple[Join, ...] = (),
        group: tuple[str | None, int | None] = (None, None),
    ) -> None:
        """Add what a part of the workflow begins with; one that cannot be sent is kept, and given up.

        Args:
            steps: what it is added to.
            whose: what it follows.
            part: a signature.
            place: what it is to the task that it follows; the same in each run, so that its ids are.
            args: of its first task.
            rest, joins: see `launch`.
            group: the group that it is a member of, and its place.

        Raises:
            BrokerConnectionError: the broker cannot be asked for what it needs.
        """
        try:
            new_id = partial(next, derived_ids(whose.task_id, place))
            frozen = self._app.workflows.freeze(signature(part), reply_to="", new_id=new_id)
            group_id, group_index = group
            plan = list(
                launch(frozen, args=args, rest=rest, joins=joins, group_id=group_id, group_index=group_index)
            )
            messages = self._app.workflows.messages(
                plan,
                root_id=whose.root_id,
                parent_id=whose.parent_id,
                timeout=_TIMEOUT,
                nesting=whose.nesting,
            )
            for item, message in zip(plan, messages, strict=True):
                # What watches a gathering went out before its definition and is larger: it would have been refused first.
                instead = partial(self._refused, whose, place, item) if isinstance(item, Message) else None
                steps.add(message, instead)
            steps.children += [item.call.id or "" for item in plan if isinstance(item, Message)]
        except BrokerConnectionError:
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - it may be anything, and users' code routes and encodes it
            error = (
                exc if isinstance(exc, Exception) else RuntimeError(f"making it raised {bounded_repr(exc)}")
            )
            self._keep(steps, whose, place, part, args, error)
            self.give_up(steps, whose, part, rest, joins, error)

    def _refused(self, whose: Whose, place: str, item: Message, error: Exception) -> Steps:
        """What is published in place of a message that the broker refuses for good."""
        steps = Steps()
        self._keep(steps, whose, place, item.call, (), error)
        self.give_up(steps, whose, item.call, item.rest, item.joins, error)
        return steps

    def _keep(
        self, steps: Steps, whose: Whose, place: str, part: Any, args: Sequence[Any], error: Exception
    ) -> None:
        """Add the dead letter of what cannot be sent."""
        what = follow_up_text(place, whose.parent_id)
        logger.error(
            "%s cannot be sent: %s", printable(what), printable(error_text(error), 1024),
            extra={"action": "follow_up_refused", "task_id": whose.parent_id},
        )  # fmt: skip
        if self._has_dead_letters and whose.queue_name:
            letter = partial(
                unsent_letter, part, args, queue_name=whose.queue_name, what=what, error=error,
                app=self._app, hostname=self._hostname,
            )  # fmt: skip
            # What the broker finds too large is so as a dead letter, too.
            whole = letter(max_bytes=self._app.settings.app.max_message_bytes)
            steps.add(whole, lambda _: Steps(messages=[letter(max_bytes=0)]))

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
        steps, passed = Steps(), whose.passed_on(error)
        for step in rest:
            self._end_members(steps, step, passed)
        self._call_errbacks(steps, whose, errbacks, error, traceback)
        self.tell_joins(steps, whose, joins, error=passed)
        return steps

    def not_run(
        self,
        steps: Steps,
        whose: Whose,
        part: Any,
        rest: Sequence[Any],
        joins: tuple[Join, ...],
        error: Exception,
    ) -> None:
        """Named steps are not run as what they need has failed: say so to all who wait for them. No errback is called."""
        for step in (part, *reversed(rest)):
            self._end_members(steps, step, error)
        self.tell_joins(steps, whose, joins, error=error)

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
        mark = _mark_of(part)
        lost = Whose(
            task_id=first_id, root_id=whose.root_id, mark=mark, of_run=whose.run, queue_name=whose.queue_name
        )
        passed = lost.passed_on(error)
        self._end_members(steps, part, error)
        for step in reversed(rest):
            self._end_members(steps, step, passed)
        self._call_errbacks(steps, lost, errbacks, error, None)
        self.tell_joins(steps, lost, joins, error=passed)

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
        for number, errback in enumerate(separate(errbacks or ())):
            place = f"errback {number}"
            call = self._with_exception(errback)
            if call is None:
                self.start(steps, whose, errback, place, args=(whose.task_id,))
                continue
            request = whose.request or Request(id=whose.task_id, root_id=whose.root_id)
            if whose.in_slot:
                steps.calls.append(partial(_call_here, call, request, error, traceback))
            else:
                self.start(steps, whose, errback_call(call, request, error, traceback), place)

    def _with_exception(self, errback: Any) -> Signature | None:
        """An errback that is called with the exception; None for one that is sent, or cannot be read, which `start` keeps."""
        try:
            call = signature(errback).bound_to(self._app.sender)
            return call if takes_exception(self._app, call) else None
        except Exception:  # noqa: BLE001 - it came in a message, and may be anything
            return None

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
            message = self._outcome(whose, join, value, error)
            steps.add(message, partial(self._outcome_instead, whose, join))
            steps.joins.append(join)

    def _outcome_instead(self, whose: Whose, join: Join, error: Exception) -> Steps:
        return Steps(messages=[self._outcome(whose, join, None, error)])

    def _outcome(self, whose: Whose, join: Join, value: Any, error: Exception | None) -> OutgoingMessage:
        """One that cannot be sent becomes a failure that says so."""
        tell = partial(
            outcome_message, join.queue, join.index, whose.task_id, added=whose.added, kept_as=whose.kept_as,
            run=whose.run,
        )  # fmt: skip
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


def _mark_of(part: Any) -> StepMark | None:
    """Which named step a signature from a message is; it may be anything."""
    match part:
        case {"options": {"headers": {} as headers}}:
            return read_mark(headers)
        case _:
            return None


def _call_here(errback: Signature, request: Request, error: Exception, traceback: str | None) -> None:
    try:
        run_errback(errback, request, error, traceback)
    except BaseException:
        # The others still run, and the failure is told.
        logger.exception(
            "errback %s of task %s failed", printable(errback.task), printable(request.id or ""),
            extra={"action": "errback_failed", "task_id": request.id},
        )  # fmt: skip


def _with_headers(part: Signature, headers: Mapping[str, Any]) -> Signature:
    """A copy in which the task whose outcome is the part's has further headers."""
    if isinstance(part, chain) and part.tasks:
        *others, last = part.tasks
        return part.changed(kwargs={**part.kwargs, "tasks": (*others, _with_headers(last, headers))})
    if isinstance(part, chord):
        return part.changed(kwargs={**part.kwargs, "body": _with_headers(part.body, headers)})
    return part.changed(
        options={**part.options, "headers": {**(part.options.get("headers") or {}), **headers}}
    )
