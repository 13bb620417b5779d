"""From a signature to messages on their way: ids for all of it, results to wait for, and what can go out now.

The worker uses `Workflows` too, for what follows a task; see `docs/explanation/workflows.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from amqp_routing import Queue, Topology
from amqp_tasks.app._destination import Destination
from amqp_tasks.app._given import OF_ITEMS
from amqp_tasks.app._group_result import GroupResult
from amqp_tasks.app._options import CallOptions, check_call_options
from amqp_tasks.app._part_checks import PartChecks
from amqp_tasks.app._place import Place
from amqp_tasks.app._publishing import publish_all_with_policy, unsent_without_broker
from amqp_tasks.app._request import Frame, enclosing_frame
from amqp_tasks.app._result import AsyncResult
from amqp_tasks.app._routed import bound_list_maker
from amqp_tasks.app._signature_options import call_options, check_option_names
from amqp_tasks.backends.disabled import UnknowableResult
from amqp_tasks.canvas import (
    Gathering,
    Join,
    Message,
    Signature,
    Workflow,
    chain,
    chord,
    freeze,
    freeze_steps,
    group,
    join_queues,
    launch,
    launch_steps,
    waiting_in,
    with_call_options,
)
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import (
    BrokerUnreachable,
    BulkSendError,
    ConfigurationError,
    MessageTooLarge,
    NotSent,
    PublishError,
)
from amqp_tasks.message import (
    JOIN_PREFIX,
    JOINS_HEADER,
    JoinWatch,
    OutgoingMessage,
    definition_message,
    outcome_message,
    read_joins,
    watch_message,
)
from amqp_tasks.transport import TopologyMode

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._dead_letters import Requeued
    from amqp_tasks.app._resuming import FailedStep
    from amqp_tasks.app._workflow_result import WorkflowResult

__all__ = ("Workflows",)

AnyResult: TypeAlias = "AsyncResult[Any] | GroupResult[Any]"

_FIRST_LOOK = 60.0
"""Seconds until a join is first looked at by the clock; sooner where it may be given up soon."""
_TELL_WITHIN = 1.0
_JUST_ENDED = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Seconds before each look at an id's joins: the last one's queue goes a moment after the result that it has brought about."""
_MORE_BEFORE = 8
"""By so many joins a workflow may have shrunk since it was sent with the same id. They are asked for together with its own."""
_NO_OPTIONS: CallOptions = {}
_NEVER = 2**31 - 1
"""A delivery limit that never comes: whoever finds a join incomplete hands its messages back."""


@dataclass(slots=True, kw_only=True)
class _Definition(OutgoingMessage):
    """What a join is for, and the message that watches it. That goes out before its queue is made: whoever dies in
    between leaves no queue for good."""

    watch: OutgoingMessage


class Workflows:
    """Sends signatures of one app. Thread safety: any thread."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send(
        self, part: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> AnyResult:
        """Send a workflow; see `Signature.apply_async`.

        Raises:
            ConfigurationError, EncodeError, InvalidArguments, UnknownQueue: a call in it cannot be made, now or later.
            BulkSendError: a part of its first messages was not sent.
            NotSent, SendUnknown: its only first message was not.
        """
        calls, settings = self._app.calls, self._app.settings.task
        if stamps := options.get("stamps"):
            part = part.with_stamps(stamps)
            options = {name: value for name, value in options.items() if name != "stamps"}
        whole = with_call_options(part, options)
        options = {**part.options, **options}
        if settings.always_eager:
            from amqp_tasks.app._eager_workflows import run_workflow

            return cast(
                "AnyResult",
                run_workflow(
                    self._app,
                    whole,
                    args,
                    kwargs,
                    throw=settings.eager_propagates,
                    serialize=True,
                ),
            )
        if part.subtask_type is None:
            task = calls.named(part.task)
            given = part.clone(args, kwargs)
            if part.task in OF_ITEMS:
                PartChecks(calls).check_items(given)
            check_option_names(options)
            return calls.send(task, given.args, given.kwargs, call_options(options))
        publishing = cast(CallOptions, {name: value for name, value in options.items() if name != "group_id"})
        check_call_options(publishing)
        _check_publishing(whole, publishing)
        deadline = time.monotonic() + calls.timeout(publishing)
        with unsent_without_broker():
            calls.connect_first(publishing, deadline)
            reply_to = self._app.backend.reply_to(timeout=seconds_left(deadline))
        frozen, result = self._with_results(self._checked(self.freeze(whole, reply_to=reply_to)), reply_to)
        frame = enclosing_frame()
        plan = launch(frozen, args=args, kwargs=kwargs)
        if isinstance(frozen, group) and frozen.is_lazy:
            self._publish_stream(
                self._prepared(plan, frame, deadline, is_stream=True), deadline, frame, publishing
            )
            return cast("AnyResult", result())
        self._publish(self._all_prepared(plan, frame, deadline), deadline, frame, publishing, result)
        return cast("AnyResult", result)

    def send_joined(self, call: Signature, join: Join, frame: Frame) -> AnyResult:
        """Send one more task whose outcome a join waits for."""
        timeout = self._app.calls.timeout({})
        deadline = time.monotonic() + timeout
        frozen = self._checked(self.freeze(call, reply_to=""))
        self._publish(self._all_prepared(launch(frozen, joins=(join,)), frame, deadline), deadline, frame)
        return self.result_of(frozen, "")

    def send_steps(
        self, workflow: Workflow, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> WorkflowResult:
        """Send named steps; see `Workflow.apply_async`."""
        from amqp_tasks.app._workflow_result import WorkflowResult

        calls = self._app.calls
        steps, checks = workflow.ordered(), PartChecks(calls)
        for step in steps:
            checks.check_step(step, args, kwargs)
        deadline = time.monotonic() + calls.timeout({} if timeout is None else {"timeout": timeout})
        workflow_id = workflow.id or self._app.calls.new_id()
        with unsent_without_broker():
            reply_to = self._app.backend.reply_to(timeout=seconds_left(deadline))
        run = "" if workflow.id is None else calls.new_id()
        frozen = freeze_steps(steps, workflow_id, calls.new_id, self._further(reply_to), run=run)
        results = {step.name: self._single(step.call, None, reply_to) for step in frozen}
        plan = list(launch_steps(frozen, workflow_id, args, kwargs))
        if workflow.id is not None:
            with unsent_without_broker():
                self._check_unused(workflow_id, plan)
        frame = enclosing_frame()
        self._publish(self._all_prepared(plan, frame, deadline, root_id=workflow_id), deadline, frame)
        after = {step.name: step.after for step in frozen}
        return WorkflowResult(
            workflow_id, results, after, joins=waiting_in(frozen, workflow_id), app=self._app
        )

    def _check_unused(self, workflow_id: str, plan: Iterable[Message | Gathering]) -> None:
        """Refuse an id whose joins are there: outcomes of two workflows would come together in them, or one be given up with the other."""
        count = sum(isinstance(item, Gathering) for item in plan)
        queues = join_queues(workflow_id, count + _MORE_BEFORE)
        for pause in _JUST_ENDED:
            time.sleep(pause)
            if not any(self._app.transport.queue_statuses(queues)):
                return
        raise ConfigurationError(
            f"a workflow with the id {workflow_id!r} is running or has failed: wait for it, resume it, or give it up"
            f" (amqp-tasks workflow discard {workflow_id})"
        )

    def freeze(self, part: Signature, *, reply_to: str, new_id: Callable[[], str] | None = None) -> Signature:
        """`part` with ids for all its tasks, and where their results go."""
        return freeze(part, new_id or self._app.calls.new_id, self._further(reply_to))

    def _checked(self, frozen: Signature) -> Signature:
        """The same, all of it checked before anything is sent; members that come from a generator each as it is read."""
        if isinstance(frozen, group) and frozen.is_lazy:
            return frozen.mapped(self._checked, **frozen.options)
        PartChecks(self._app.calls).check(frozen)
        return frozen

    def _further(self, reply_to: str) -> Callable[[Signature], Mapping[str, Any]]:
        """Options of each single task."""
        calls = self._app.calls

        def further(call: Signature) -> Mapping[str, Any]:
            return {"reply_to": reply_to if calls.wants_result(call.task, call.options) else ""}

        return further

    # -- steps that have failed

    def failed_steps(
        self, workflow_id: str | None = None, *, queues: Iterable[str] | None = None
    ) -> list[FailedStep]:
        """The failed steps of a workflow of named steps, or of all; they stay where they are.

        Args:
            workflow_id: of the workflow; None: of all.
            queues: task queues whose dead letters are looked at; None: all of the app.

        Raises:
            UnknownQueue, TopologyMismatch, BrokerConnectionError, BrokerOperationError: as `app.dead_letters.find`.
        """
        from amqp_tasks.app._resuming import failed_steps

        return failed_steps(self._app, workflow_id, queues)

    def resume(
        self,
        workflow_id: str,
        *,
        steps: Collection[str] | None = None,
        queues: Iterable[str] | None = None,
    ) -> Requeued:
        """Have the failed steps of a workflow run once more, and then what needs them; those that ended well are not.

        Each is published, confirmed, and only then removed from the dead letters: what ends this in between leaves a duplicate, never a loss.

        Args:
            workflow_id: of the workflow.
            steps: names of those that are meant; None: all that have failed.
            queues: as of `failed_steps`.

        Raises:
            as `failed_steps`. What could not be published is in `Requeued.failures`.
        """
        from amqp_tasks.app._resuming import resume

        return resume(self._app, workflow_id, steps, queues)

    def discard(self, workflow_id: str, *, queues: Iterable[str] | None = None) -> int:
        """Give a failed workflow up: remove its failed steps, and what waits for them, for good; returns how many steps.

        Where its failed steps are in the dead letters no more, as these were purged, what waits for them is removed, and its steps are counted.
        That is so too while a step runs that was resumed, and where the failed steps lie in queues that this app does not have. A workflow of which
        nothing has failed is left alone.

        Args:
            workflow_id: of the workflow.
            queues: as of `failed_steps`; what a purge has left is removed only with None.

        Raises:
            as `failed_steps`.
        """
        from amqp_tasks.app._resuming import discard

        return discard(self._app, workflow_id, queues)

    # -- results

    def _with_results(self, frozen: Signature, reply_to: str) -> tuple[Signature, Any]:
        """The workflow, and its result; of a generator, what makes the result when the generator has been read."""
        if not (isinstance(frozen, group) and frozen.is_lazy):
            return frozen, self.result_of(frozen, reply_to)
        results: list[Any] = []

        def noted(member: Signature) -> Signature:
            results.append(self.result_of(member, reply_to))
            return member

        group_id = frozen.options["group_id"]
        return frozen.mapped(noted, **frozen.options), lambda: GroupResult(group_id, results)

    def result_of(self, part: Signature, reply_to: str, parent: AnyResult | None = None) -> AnyResult:
        """The result of a frozen workflow; this process is ready for all that will arrive for it at `reply_to`."""
        if isinstance(part, chain):
            for step in part.tasks:
                parent = self.result_of(step, reply_to, parent)
            assert parent is not None
            return parent
        if isinstance(part, group):
            members = [
                cast("AsyncResult[Any]", self.result_of(member, reply_to, parent)) for member in part.tasks
            ]
            return GroupResult(part.options["group_id"], members, parent=parent)
        if isinstance(part, chord):
            return self.result_of(part.body, reply_to, self.result_of(part.header, reply_to, parent))
        return self._single(part, parent, reply_to)

    def _single(self, call: Signature, parent: AnyResult | None, reply_to: str) -> AsyncResult[Any]:
        task_id, place = call.id or "", call.options.get("reply_to") or ""
        if place and place == reply_to:
            expected = self._app.backend.expect(task_id, reply_to=reply_to)
        elif place:
            expected = UnknowableResult(f"the result of task {task_id} goes to reply_to={place!r}")
        else:
            expected = UnknowableResult(f"task {task_id} was called with ignore_result, so no result is sent")
        task = self._app.calls.named(call.task)
        return AsyncResult(task_id, app=self._app, task=task, expected=expected, parent=parent)

    # -- sending

    def _prepared(
        self,
        plan: Iterable[Message | Gathering],
        frame: Frame | None,
        deadline: float,
        *,
        root_id: str | None = None,
        is_stream: bool = False,
    ) -> Iterator[OutgoingMessage]:
        if frame is not None:
            root_id = frame.request.root_id or frame.request.id
        parent_id = frame.request.id if frame is not None else None
        for item in plan:
            if root_id is None:
                root_id = item.call.id if isinstance(item, Message) else item.queue.removeprefix(JOIN_PREFIX)
            with unsent_without_broker():
                message = self._item(item, root_id, parent_id, deadline)
                if is_stream:
                    self._make_joins((message,), deadline)
            yield message

    def _all_prepared(
        self,
        plan: Iterable[Message | Gathering],
        frame: Frame | None,
        deadline: float,
        *,
        root_id: str | None = None,
    ) -> list[OutgoingMessage]:
        """All of it before the first queue is made and the first message goes out: a call that cannot be made leaves nothing."""
        messages = list(self._prepared(plan, frame, deadline, root_id=root_id))
        if any(isinstance(message, _Definition) for message in messages):
            self._check_sizes(messages)
            with unsent_without_broker():
                self._make_joins(messages, deadline)
        return messages

    def messages(
        self,
        plan: Iterable[Message | Gathering],
        *,
        root_id: str | None,
        parent_id: str | None,
        timeout: float,
        nesting: int = 0,
    ) -> list[OutgoingMessage]:
        """What is to be published for a plan; the queues that it needs exist.

        Raises:
            BrokerConnectionError: the broker cannot be asked for them.
            ConfigurationError, EncodeError, InvalidArguments: a call in it that cannot be made.
        """
        deadline = time.monotonic() + timeout
        try:
            # As for callers: all of it before the first queue is made.
            messages = [self._item(item, root_id, parent_id, deadline, nesting) for item in plan]
            self._check_sizes(messages)
            self._make_joins(messages, deadline)
        except PublishError as exc:
            if isinstance(exc, NotSent) and exc.is_final:
                raise
            # Not for what is sent, but because the broker does not take it now.
            raise BrokerUnreachable(str(exc)) from exc
        return messages

    def _item(
        self,
        item: Message | Gathering,
        root_id: str | None,
        parent_id: str | None,
        deadline: float,
        nesting: int = 0,
    ) -> OutgoingMessage:
        if isinstance(item, Gathering):
            return self._definition(item, root_id, parent_id, deadline)
        calls, call = self._app.calls, item.call
        group_id, group_index, body = _stock_place(call.options)
        place = Place(
            chain=item.rest, joins=_joins(item.joins), chord=body,
            group=item.group or group_id, group_index=item.group_index if item.group else group_index,
            root_id=root_id, parent_id=parent_id, nesting=nesting,
        )  # fmt: skip
        task, options = calls.named(call.task), call_options(call.options)
        return calls.part(task, call.args, call.kwargs, options, place, deadline=deadline)

    def _definition(
        self, item: Gathering, root_id: str | None, parent_id: str | None, deadline: float
    ) -> _Definition:
        definition: dict[str, Any] = {"size": item.size, "root_id": root_id, "parent_id": parent_id}
        calls, where = self._app.calls, item.where
        task, options = calls.named(where.task), call_options(where.options)
        destination, priority = calls.place_of(task, where.args, where.kwargs, options, deadline=deadline)
        if item.body is not None:
            definition |= _part(bound_list_maker(item.body, destination, priority), item.rest, item.joins)
            if item.on_complete:
                definition["on_complete"] = True
        else:
            definition["steps"] = [_part(step.call, step.rest, step.joins) for step in item.steps]
            definition["needs"] = [needed.data for needed in item.needs]
        message = definition_message(item.queue, definition)
        return _Definition(
            exchange=message.exchange, routing_key=message.routing_key, body=message.body,
            properties=message.properties, signed_as=message.signed_as,
            watch=self._watch(item.queue, definition, destination),
        )  # fmt: skip

    def _watch(self, queue: str, definition: Mapping[str, Any], destination: Destination) -> OutgoingMessage:
        timeout = self._app.settings.task.chord_timeout
        pause = _FIRST_LOOK if timeout is None else min(_FIRST_LOOK, timeout / 4)
        watch = JoinWatch(queue=queue, definition=definition, since=time.time(), pause=max(1.0, pause))
        return watch_message(watch, exchange=destination.exchange, routing_key=destination.routing_key)

    def _make_joins(self, messages: Iterable[OutgoingMessage], deadline: float) -> None:
        joins = [message for message in messages if isinstance(message, _Definition)]
        if not joins:
            return
        outcomes = self._app.transport.publish_many(
            [join.watch for join in joins], timeout=seconds_left(deadline)
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        queues = tuple(Queue(join.routing_key, delivery_limit=_NEVER) for join in joins)
        self._app.transport.ensure_topology(
            Topology(queues=queues),
            mode=TopologyMode.DECLARE,
            timeout=seconds_left(deadline),
            is_lasting=False,
        )

    def _check_sizes(self, messages: Iterable[OutgoingMessage]) -> None:
        most = self._app.settings.app.max_message_bytes
        for message in messages:
            size = len((message.watch if isinstance(message, _Definition) else message).body)
            if size > most:
                raise MessageTooLarge(
                    f"a message of a workflow has {size} bytes, max_message_bytes is {most}:"
                    " pass a reference to the data instead"
                )

    def _publish(
        self,
        messages: Sequence[OutgoingMessage],
        deadline: float,
        frame: Frame | None,
        options: CallOptions = _NO_OPTIONS,
        result: AnyResult | None = None,
    ) -> None:
        """Send what a workflow begins with; `result` is told where nobody waits for the confirm."""
        calls = self._app.calls
        if len(messages) == 1:
            calls.publish(messages[0], options, deadline, partial(_fail, result))
        else:
            outcomes = publish_all_with_policy(
                self._app.transport, messages, calls.policy_of(options), timeout=seconds_left(deadline)
            )
            self._check_sent(outcomes, dict(enumerate(messages)))
        if options.get("add_to_parent", True):
            _note_children(messages, frame)

    def _publish_stream(
        self, messages: Iterator[OutgoingMessage], deadline: float, frame: Frame | None, options: CallOptions
    ) -> None:
        """The same for members that come from a generator, which are not held."""
        if not options.get("add_to_parent", True):
            frame = None
        members: dict[int, OutgoingMessage] = {}
        sent = _noted(messages, members, keeps_all=frame is not None)
        self._check_sent(self._app.transport.publish_many(sent, timeout=seconds_left(deadline)), members)
        _note_children(members.values(), frame)

    def _check_sent(
        self, outcomes: Sequence[Exception | None], members: Mapping[int, OutgoingMessage]
    ) -> None:
        if any(outcome is not None for outcome in outcomes):
            self._tell_unsent([(members[at], each) for at, each in enumerate(outcomes) if at in members])
            raise BulkSendError(outcomes, [None] * len(outcomes))

    def _tell_unsent(self, members: Iterable[tuple[OutgoingMessage, Exception | None]]) -> None:
        """Tell joins of members that were certainly not sent. If that is not sent either, the joins are given up in time."""
        told = [
            outcome_message(queue, index, message.properties.correlation_id or "", error=error)
            for message, error in members
            if isinstance(error, NotSent)
            for queue, index, _ in read_joins(message.properties.headers)
        ]
        self._app.transport.publish_many(told, timeout=_TELL_WITHIN)


def _note_children(messages: Iterable[OutgoingMessage], frame: Frame | None) -> None:
    """Count what was sent among the children of the task that sent it."""
    if frame is not None and frame.task.trail:
        ids = (message.properties.correlation_id for message in messages)
        frame.children += [task_id for task_id in ids if task_id]


def _noted(
    messages: Iterable[OutgoingMessage], members: dict[int, OutgoingMessage], *, keeps_all: bool
) -> Iterator[OutgoingMessage]:
    """The messages; those that joins wait for, or all, are put into `members` under their place."""
    for at, message in enumerate(messages):
        if keeps_all or JOINS_HEADER in message.properties.headers:
            members[at] = message
        yield message


def _check_publishing(part: Signature, options: CallOptions) -> None:
    """Refuse what belongs to the publish of one message, where several go first."""
    first: Signature = part
    while isinstance(first, chain):
        first = first.first
    if first.subtask_type is not None and not options.get("confirm", True):
        raise ConfigurationError(
            f"confirm=False is for one message, and a {first.subtask_type} begins with several, which are confirmed together:"
            " leave it out"
        )
    if isinstance(first, group) and first.is_lazy and options.get("retry_policy") is not None:
        raise ConfigurationError(
            "retry_policy needs the messages again, and those of a generator are not held: give the group a list"
        )


def _fail(last: AnyResult | None, error: Exception) -> None:
    """What a workflow begins with was not sent: nothing of it will have a result."""
    todo: list[AnyResult | None] = [last]
    seen: set[str] = set()
    while todo:
        result = todo.pop()
        if result is None or result.id in seen:
            continue
        seen.add(result.id)
        todo.append(result.parent)
        if isinstance(result, GroupResult):
            todo += result.results
        else:
            result._expectation().fail(error)


def _stock_place(options: Mapping[str, Any]) -> tuple[str | None, int | None, Mapping[str, Any] | None]:
    """Group, place in it and body of a chord, which stock clients write into the options of a later step."""
    group_id, index, body = options.get("group_id"), options.get("group_index"), options.get("chord")
    return (
        group_id if isinstance(group_id, str) else None,
        index if isinstance(index, int) else None,
        body if isinstance(body, Mapping) else None,  # pyright: ignore[reportUnknownVariableType] - any
    )


def _part(body: Signature, rest: Sequence[Mapping[str, Any]], joins: Iterable[Join]) -> dict[str, Any]:
    return {"body": body, "chain": list(rest), "joins": _joins(joins)}


def _joins(joins: Iterable[Join]) -> list[Any]:
    return [[join.queue, join.index, join.size] for join in joins]
