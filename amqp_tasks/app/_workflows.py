"""From a signature to messages on their way: ids for all of it, results to wait for, and what can go out now.

The worker uses `Workflows` too, for what follows a task; see `docs/explanation/workflows.md`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from amqp_routing import Queue, Topology
from amqp_tasks.app._calls import Place, Prepared
from amqp_tasks.app._group_result import GroupResult
from amqp_tasks.app._options import CALL_OPTIONS, CallOptions, check_call_options
from amqp_tasks.app._request import Frame, enclosing_frame
from amqp_tasks.app._result import AsyncResult
from amqp_tasks.backends.disabled import UnknowableResult
from amqp_tasks.canvas import (
    Gathering,
    Join,
    Message,
    Signature,
    chain,
    chord,
    freeze,
    group,
    launch,
)
from amqp_tasks.errors import BulkSendError, ConfigurationError, MessageTooLarge
from amqp_tasks.message import JOIN_PREFIX, OutgoingMessage, definition_message, new_task_id
from amqp_tasks.transport import TopologyMode

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("Workflows",)

AnyResult: TypeAlias = "AsyncResult[Any] | GroupResult[Any]"

_NEVER = 2**31 - 1
"""A delivery limit that never comes: whoever finds a join incomplete hands its messages back."""


class Workflows:
    """Sends signatures of one app. Thread safety: any thread."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send(
        self, part: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> AnyResult:
        """Send a workflow; see `Signature.apply_async`.

        Raises:
            BulkSendError: a part of its first messages was not sent.
            NotSent, SendUnknown: its only first message was not.
        """
        calls, settings = self._app.calls, self._app.settings.task
        options = {**part.options, **options}
        if settings.always_eager:
            from amqp_tasks.app._eager_workflows import run_workflow

            return cast(
                "AnyResult",
                run_workflow(
                    self._app,
                    part.set(**options),
                    args,
                    kwargs,
                    throw=settings.eager_propagates,
                    serialize=True,
                ),
            )
        if part.subtask_type is None:
            task = calls.named(part.task)
            whole = part.clone(args, kwargs)
            return calls.send(task, whole.args, whole.kwargs, call_options(options))
        check_call_options({name: value for name, value in options.items() if name != "group_id"})
        deadline = time.monotonic() + calls.timeout(cast(CallOptions, options))
        frozen = self.freeze(
            part.set(**options), reply_to=self._app.backend.reply_to(timeout=deadline - time.monotonic())
        )
        frozen, result = self._with_results(frozen)
        frame = enclosing_frame()
        plan = launch(frozen, args=args, kwargs=kwargs)
        if isinstance(frozen, group) and frozen.is_lazy:
            items = self._prepared(plan, frame, deadline, is_stream=True)
        else:
            items = self._all_prepared(plan, frame, deadline)
        self._publish(items, deadline)
        return cast("AnyResult", result() if callable(result) else result)

    def send_joined(self, call: Signature, join: Join, frame: Frame) -> AnyResult:
        """Send one more task whose outcome a join waits for."""
        timeout = self._app.calls.timeout({})
        deadline = time.monotonic() + timeout
        frozen = self.freeze(call, reply_to="")
        self._publish(self._all_prepared(launch(frozen, joins=(join,)), frame, deadline), deadline)
        return self.result_of(frozen)

    def freeze(self, part: Signature, *, reply_to: str) -> Signature:
        """`part` with ids for all its tasks, and where their results go."""

        def further(call: Signature) -> Mapping[str, Any]:
            wants_result = self._app.calls.wants_result(call.task, call.options)
            return {"reply_to": reply_to if wants_result else ""}

        return freeze(part, new_task_id, further)

    # -- results

    def _with_results(self, frozen: Signature) -> tuple[Signature, Any]:
        """The workflow, and its result; of a generator, what makes the result when the generator has been read."""
        if not (isinstance(frozen, group) and frozen.is_lazy):
            return frozen, self.result_of(frozen)
        results: list[Any] = []

        def noted(member: Signature) -> Signature:
            results.append(self.result_of(member))
            return member

        group_id = frozen.options["group_id"]
        return frozen.mapped(noted, **frozen.options), lambda: GroupResult(group_id, results)

    def result_of(self, part: Signature, parent: AnyResult | None = None) -> AnyResult:
        """The result of a frozen workflow; this process is ready for all that will arrive for it."""
        if isinstance(part, chain):
            for step in part.tasks:
                parent = self.result_of(step, parent)
            assert parent is not None
            return parent
        if isinstance(part, group):
            members = [cast("AsyncResult[Any]", self.result_of(member, parent)) for member in part.tasks]
            return GroupResult(part.options["group_id"], members, parent=parent)
        if isinstance(part, chord):
            return self.result_of(part.body, self.result_of(part.header, parent))
        return self._single(part, parent)

    def _single(self, call: Signature, parent: AnyResult | None) -> AsyncResult[Any]:
        task_id, reply_to = call.id or "", call.options.get("reply_to") or ""
        if reply_to:
            expected = self._app.backend.expect(task_id, reply_to=reply_to)
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
        is_stream: bool = False,
    ) -> Iterator[Prepared | OutgoingMessage]:
        root_id = frame.request.root_id or frame.request.id if frame is not None else None
        parent_id = frame.request.id if frame is not None else None
        for item in plan:
            if root_id is None:
                root_id = item.call.id if isinstance(item, Message) else item.queue.removeprefix(JOIN_PREFIX)
            if is_stream:
                self._declare_joins((item,), deadline)
            yield self._item(item, root_id, parent_id, deadline)

    def _all_prepared(
        self, plan: Iterable[Message | Gathering], frame: Frame | None, deadline: float
    ) -> Iterator[Prepared | OutgoingMessage]:
        """All of it before the first queue is made and the first message goes out: a call that cannot be made leaves nothing."""
        plan = list(plan)
        items = list(self._prepared(plan, frame, deadline))
        if any(isinstance(item, Gathering) for item in plan):
            self._check_sizes(_messages(items))
            self._declare_joins(plan, deadline)
        return iter(items)

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
        plan = list(plan)
        # As for callers: all of it before the first queue is made.
        messages = list(_messages(self._item(item, root_id, parent_id, deadline, nesting) for item in plan))
        self._check_sizes(messages)
        self._declare_joins(plan, deadline)
        return messages

    def _item(
        self,
        item: Message | Gathering,
        root_id: str | None,
        parent_id: str | None,
        deadline: float,
        nesting: int = 0,
    ) -> Prepared | OutgoingMessage:
        if isinstance(item, Gathering):
            return _definition(item, root_id, parent_id)
        calls = self._app.calls
        place = Place(
            chain=item.rest, joins=_joins(item.joins), group=item.group, group_index=item.group_index,
            root_id=root_id, parent_id=parent_id, nesting=nesting,
        )  # fmt: skip
        call = item.call
        return calls.prepare(
            calls.named(call.task),
            call.args,
            call.kwargs,
            call_options(call.options),
            deadline=deadline,
            place=place,
        )

    def _declare_joins(self, plan: Iterable[Message | Gathering], deadline: float) -> None:
        for item in plan:
            if isinstance(item, Gathering):
                queue = Queue(item.queue, delivery_limit=_NEVER)
                timeout = max(0.0, deadline - time.monotonic())
                self._app.transport.ensure_topology(
                    Topology(queues=(queue,)), mode=TopologyMode.DECLARE, timeout=timeout, is_lasting=False
                )

    def _check_sizes(self, messages: Iterable[OutgoingMessage]) -> None:
        most = self._app.settings.app.max_message_bytes
        for message in messages:
            if len(message.body) > most:
                raise MessageTooLarge(
                    f"a message of a workflow has {len(message.body)} bytes, max_message_bytes is {most}:"
                    " pass a reference to the data instead"
                )

    def _publish(self, items: Iterator[Prepared | OutgoingMessage], deadline: float) -> None:
        first = list(_up_to(items, 2))
        if len(first) == 1 and isinstance(first[0], Prepared):
            self._app.calls.publish(first[0], {}, deadline)
            return
        messages = _messages(_after(first, items))
        outcomes = self._app.transport.publish_many(messages, timeout=max(0.0, deadline - time.monotonic()))
        if any(outcome is not None for outcome in outcomes):
            raise BulkSendError(outcomes, [None] * len(outcomes))


def _messages(items: Iterable[Prepared | OutgoingMessage]) -> Iterator[OutgoingMessage]:
    return (item.message if isinstance(item, Prepared) else item for item in items)


def _up_to(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def _after(first: Iterable[Any], items: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from items


def _definition(item: Gathering, root_id: str | None, parent_id: str | None) -> OutgoingMessage:
    definition = {
        "body": item.body, "chain": list(item.rest), "joins": _joins(item.joins), "size": item.size,
        "root_id": root_id, "parent_id": parent_id,
    }  # fmt: skip
    return definition_message(item.queue, definition)


def _joins(joins: Iterable[Join]) -> list[Any]:
    return [[join.queue, join.index, join.size] for join in joins]


def call_options(options: Mapping[str, Any]) -> CallOptions:
    """Options of a signature as a call takes them; times that came as text are times again. What only other systems know
    is left out."""
    found = {name: value for name, value in options.items() if name in CALL_OPTIONS}
    for name in ("eta", "expires"):
        if isinstance(found.get(name), str):
            try:
                found[name] = datetime.fromisoformat(found[name])
            except ValueError as exc:
                raise ConfigurationError(
                    f"option {name!r} of a signature is no time: {found[name]!r:.60}"
                ) from exc
    check_call_options(found)
    return cast(CallOptions, found)
