"""From a call to a message on its way: options, destination, reply queue, publish.

Everything that does not change from call to call is prepared once per task: see `_Plan`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._destination import Destination, Destinations
from amqp_tasks.app._errbacks import CALL_ERRBACK
from amqp_tasks.app._given import OF_ITEMS, item_task
from amqp_tasks.app._options import CallOptions, start_of
from amqp_tasks.app._place import Place, embed, header_changes
from amqp_tasks.app._properties import aware, further_options
from amqp_tasks.app._publishing import ONE_ATTEMPT, PublishPolicy, connect_with_policy, publish_with_policy
from amqp_tasks.app._request import DEPTH_HEADER, Frame, child_depth, enclosing_frame
from amqp_tasks.app._result import AsyncResult
from amqp_tasks.app._routed import is_bound, routed_arguments
from amqp_tasks.app._task import Task
from amqp_tasks.backends.disabled import UnknowableResult
from amqp_tasks.errors import BrokerConnectionError, NotSent, PublishError
from amqp_tasks.message import (
    FURTHER_PROPERTIES,
    IDEMPOTENCY_HEADER,
    OutgoingMessage,
    TaskTemplate,
    check_task_name,
    check_user_headers,
    new_sortable_id,
    new_task_id,
)
from amqp_tasks.message._printable import HIDDEN

if TYPE_CHECKING:
    from amqp_routing import Router
    from amqp_tasks.app._app import App
    from amqp_tasks.app._topology import Topologies
    from amqp_tasks.backend import ExpectedResult, ResultBackend
    from amqp_tasks.settings import Settings
    from amqp_tasks.transport import Transport

__all__ = ("Calls", "Prepared")

_log = logging.getLogger(__name__)

_NO_OPTIONS: CallOptions = {}
_TASK_OPTIONS = (
    "queue", "exchange", "routing_key", "priority", "serializer", "compression", "delivery_mode", "expires",
    "ignore_result", "time_limit", "soft_time_limit",
)  # fmt: skip
_FOR_ANOTHER = OF_ITEMS | {CALL_ERRBACK}
_WHERE = ("queue", "exchange", "routing_key", "priority")
_OF_ERRBACK = (*_WHERE, "time_limit", "soft_time_limit")
# What a plan depends on: a call that says none of it has the plan of all such calls.
_PLANNED = frozenset(_TASK_OPTIONS)
_LINKS = frozenset({"link", "link_error"})
_FURTHER = frozenset({*FURTHER_PROPERTIES, "task_id"})
"""Options that have a say in the AMQP properties which the task protocol leaves alone."""
_MAX_PLANS = 2048
# Seconds between two warnings about the size of one task's messages.
_WARN_EVERY = 60.0


@dataclass(slots=True)
class _Plan:
    """What calls of one task with one set of options share.

    Attributes:
        template: the constant part of the message.
        destination: where it goes.
        wants_result: whether a result is expected.
        priority: of the message; None when neither call, task nor route say.
        start: seconds from now or a point in time before which it does not start, unless the call says so itself.
        expires: seconds or a point in time after which it does not start.
    """

    template: TaskTemplate
    destination: Destination
    wants_result: bool
    priority: int | None
    start: float | datetime | None
    expires: float | datetime | timedelta | None


@dataclass(slots=True)
class Prepared:
    """One call, ready to be published; `frame` is the execution whose child it becomes, if any."""

    message: OutgoingMessage
    result: AsyncResult[Any]
    expected: ExpectedResult
    frame: Frame | None


class Calls:
    """Sends tasks of one app. Built anew when the settings change. Thread safety: any thread."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        router: Router,
        topologies: Topologies,
        transport: Transport,
        backend: ResultBackend,
    ) -> None:
        self._app, self._transport, self._backend = app, transport, backend
        self._task_settings = settings.task
        self.new_id = new_sortable_id if settings.task.id_version == 7 else new_task_id
        self._timeout = settings.task.publish_timeout
        self._is_eager = settings.task.always_eager
        self._policy = PublishPolicy.of(
            settings.task.publish_retry_policy.model_dump(), counts_connections=False
        )
        self._destinations = Destinations(settings, router, topologies, transport)
        self._warn_bytes, self._max_bytes = settings.app.warn_message_bytes, settings.app.max_message_bytes
        # When a task's size was last warned of. Any thread writes; a race only warns twice.
        self._warned: dict[str, float] = {}
        self._has_warned_of_naive = False  # by any thread, once
        # Plans of calls without options. Any thread may add one; a race only prepares it twice.
        self._plans: dict[Task[..., Any], _Plan] = {}
        # What `PartChecks` has found to be right, which alone reads it. Any thread adds; a race only checks twice.
        self.known_right: set[Hashable] = set()
        self._templates: dict[tuple[Any, ...], TaskTemplate] = {}
        self._strangers: dict[str, Task[..., Any]] = {}

    @property
    def app(self) -> App:
        """Whose tasks are sent."""
        return self._app

    def named(self, name: str) -> Task[..., Any]:
        """The task of a name; one without function and checks when it is not registered here."""
        known = self._app.tasks.get(name) or self._strangers.get(name)
        if known is None:
            known = Task[..., Any]()
            known._register(self._app, check_task_name(name), {"typing": False})
            if len(self._strangers) >= _MAX_PLANS:
                self._strangers.clear()
            self._strangers[name] = known
        return known

    def send(
        self,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions = _NO_OPTIONS,
    ) -> AsyncResult[Any]:
        """Send one call and wait for the broker's confirm; see `Task.apply_async`."""
        if self._is_eager:
            from amqp_tasks.app._eager import run_eagerly

            throw = self._task_settings.eager_propagates
            return run_eagerly(task, args, kwargs, options, throw=throw, serialize=True)
        deadline = time.monotonic() + self.timeout(options)
        prepared = self.prepare(task, args, kwargs, options, deadline=deadline)
        self.publish(prepared.message, options, deadline, prepared.expected.fail)
        note_sent(prepared.result, prepared.frame)
        return prepared.result

    def prepare(
        self,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions = _NO_OPTIONS,
        *,
        deadline: float,
    ) -> Prepared:
        """Everything but the publish: arguments are checked and encoded, the destination and the reply queue exist.

        `deadline` (monotonic) bounds what has to be asked of the broker.
        """
        if not _LINKS.isdisjoint(options):
            self._check_links(options)
        plan = self._plan(task, args, kwargs, options)
        frame = enclosing_frame()
        message = self._message(plan, task, args, kwargs, options, frame, None, deadline)
        task_id = message.properties.correlation_id
        assert task_id is not None
        expected = self._expect(plan, message, options)
        result: AsyncResult[Any] = AsyncResult(
            task_id, app=self._app, task=task, expected=expected, queue_name=plan.destination.queue_name
        )
        if frame is not None and not options.get("add_to_parent", True):
            frame = None
        return Prepared(message, result, expected, frame)

    def part(
        self,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        place: Place,
        *,
        deadline: float,
    ) -> OutgoingMessage:
        """The same for a part of a workflow, whose result is expected by who composed it."""
        plan = self._plan(task, args, kwargs, options)
        return self._message(plan, task, args, kwargs, options, enclosing_frame(), place, deadline)

    def _message(
        self,
        plan: _Plan,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        frame: Frame | None,
        place: Place | None,
        deadline: float,
    ) -> OutgoingMessage:
        message = self._build(plan, task, args, kwargs, options, frame, place)
        if self._warn_bytes < len(message.body) <= self._max_bytes:
            self._warn_of_size(task.name, len(message.body))
        self._make_ready(plan, message, options, deadline)
        return message

    def _plan(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> _Plan:
        is_plain = (
            self._destinations.is_static and _PLANNED.isdisjoint(options) and task.name not in _FOR_ANOTHER
        )
        if is_plain:
            known = self._plans.get(task)
            if known is not None:
                return known
        plan = self._make_plan(task, args, kwargs, _NO_OPTIONS if is_plain else options)
        if is_plain:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[task] = plan
        return plan

    def check(self, task: Task[..., Any], kwargs: Mapping[str, Any], options: CallOptions) -> None:
        """Refuse options with which a call could not be sent by whoever comes to it, as far as that is known before its arguments are.

        Raises:
            ConfigurationError, EncodeError, UnknownQueue: as `prepare`.
        """
        _, own, called = self._layers(task, kwargs, options)
        self._template_for(task, self._destinations.check(own, called))
        start_of(options)
        self.policy_of(options)
        further_options(options, self._app.timezone)
        check_user_headers(options.get("headers") or {})

    def _check_links(self, options: CallOptions) -> None:
        from amqp_tasks.app._part_checks import PartChecks

        PartChecks(self).check_links(options)

    def _make_plan(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> _Plan:
        name, own, called = self._layers(task, kwargs, options)
        if not self._destinations.is_static:
            args, kwargs = routed_arguments(task.name, args, kwargs)
        asks_routes = not is_bound(task.name, called)
        merged, destination = self._destinations.resolve(
            name, args, kwargs, own, called, asks_routes=asks_routes
        )
        return _Plan(
            template=self._template_for(task, merged),
            destination=destination,
            wants_result=not self._ignores_result(merged),
            priority=merged.get("priority"),
            start=start_of(merged),
            expires=merged.get("expires"),
        )

    def _layers(
        self, task: Task[..., Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The name that routes go by, and the options of the task and of the call."""
        own = {name: value for name in _TASK_OPTIONS if (value := getattr(task, name)) is not None}
        called = {name: value for name, value in options.items() if value is not None}
        name = task.name
        if name in _FOR_ANOTHER:
            other = self._other_task(kwargs) or task
            name = other.name
            of_another = _OF_ERRBACK if task.name == CALL_ERRBACK else _WHERE
            own |= {part: value for part in of_another if (value := getattr(other, part)) is not None}
        return name, own, called

    def _ignores_result(self, merged: Mapping[str, Any]) -> bool:
        return bool(merged.get("ignore_result", self._task_settings.ignore_result))

    def _template_for(self, task: Task[..., Any], merged: Mapping[str, Any]) -> TaskTemplate:
        settings = self._task_settings
        return self._template(
            task.name,
            serializer=merged.get("serializer", settings.serializer),
            compression=merged.get("compression", settings.compression),
            ignore_result=self._ignores_result(merged),
            time_limit=merged.get("time_limit"),
            soft_time_limit=merged.get("soft_time_limit"),
            delivery_mode=merged.get("delivery_mode", settings.default_delivery_mode),
        )

    def _other_task(self, kwargs: Mapping[str, Any]) -> Task[..., Any] | None:
        """The task that a message of a built-in one is about, which goes where its own would."""
        name = item_task(kwargs)
        return self.named(name) if name is not None else None

    def labels(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[str | None, str | None]:
        """What people are shown of the arguments of a call that has sensitive ones, of its own task or of the one that it has run
        for many items; None, where it has none: all of them."""
        if task.sensitive:
            return task.parameters.labels(args, kwargs, task.sensitive)
        if task.name in OF_ITEMS:
            other = self._other_task(kwargs)
            if other is not None and other.sensitive:
                return None, f"{{'task': {other.name!r}, 'it': {HIDDEN}}}"
        return _NO_LABELS

    def _template(self, task_name: str, **parts: Any) -> TaskTemplate:
        key = (task_name, *parts.values())
        known = self._templates.get(key)
        if known is None:
            if len(self._templates) >= _MAX_PLANS:
                self._templates.clear()
            known = self._templates[key] = TaskTemplate(task_name, **parts)
        return known

    def _build(
        self,
        plan: _Plan,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        frame: Frame | None,
        place: Place | None,
    ) -> OutgoingMessage:
        parameters = task.parameters
        sent_args, sent_kwargs = parameters.dump(args, kwargs)
        labels = self.labels(task, args, kwargs)
        headers = options.get("headers")
        root_id = parent_id = None
        if frame is not None:
            parent_id = frame.request.id
            root_id = frame.request.root_id or parent_id
            headers = {
                **(headers or {}),
                DEPTH_HEADER: child_depth(frame, self._task_settings.depth_limit),
            }
        if (key := options.get("idempotency_key")) is not None:
            headers = {**(headers or {}), IDEMPOTENCY_HEADER: key}
        if place is not None:
            root_id, parent_id = place.root_id, place.parent_id
        start = start_of(options) if options else None
        if start is None:
            start = plan.start
        return plan.template.build(
            exchange=plan.destination.exchange,
            routing_key=plan.destination.routing_key,
            task_id=options.get("task_id") or self.new_id(),
            args=sent_args if isinstance(sent_args, list | tuple) else list(sent_args),
            kwargs=sent_kwargs,
            priority=plan.priority if plan.priority is not None else self._usual_priority(frame),
            eta=None if start is None else self._start(start),
            expires=None if plan.expires is None else self._expiry(plan.expires),
            shadow=options.get("shadow"),
            headers=headers,
            root_id=root_id,
            parent_id=parent_id,
            argsrepr=options.get("argsrepr") or labels[0],
            kwargsrepr=options.get("kwargsrepr") or labels[1],
            further=None if _FURTHER.isdisjoint(options) else further_options(options, self._app.timezone),
            embed=embed(options, place) if options or place is not None else None,
            changes=header_changes(options, place),
        )

    def wants_result(self, task_name: str, options: Mapping[str, Any]) -> bool:
        """Whether the outcome of such a call is sent to somebody."""
        is_ignored = options.get("ignore_result")
        if is_ignored is None:
            is_ignored = self.named(task_name).ignore_result
        return not (self._task_settings.ignore_result if is_ignored is None else is_ignored)

    def _usual_priority(self, frame: Frame | None) -> int | None:
        if frame is not None and self._task_settings.inherit_parent_priority:
            inherited = frame.request.delivery_info.get("priority")
            if inherited is not None:
                return inherited
        return self._task_settings.default_priority

    def _start(self, start: float | datetime) -> float | datetime:
        if not isinstance(start, datetime):
            return start
        if start.tzinfo is None and not self._has_warned_of_naive:
            self._has_warned_of_naive = True
            _log.warning(
                "a naive eta is read as a time in %s (setting timezone): give it a tzinfo to mean another zone",
                self._app.timezone,
                extra={"action": "naive_eta"},
            )
        return aware(start, self._app.timezone)

    def _expiry(self, expires: float | datetime | timedelta) -> float | datetime:
        if isinstance(expires, timedelta):
            return expires.total_seconds()
        return aware(expires, self._app.timezone) if isinstance(expires, datetime) else expires

    def _warn_of_size(self, task_name: str, size: int) -> None:
        now = time.monotonic()
        last = self._warned.get(task_name)
        if last is not None and now - last < _WARN_EVERY:
            return
        if len(self._warned) >= _MAX_PLANS:
            self._warned.clear()
        self._warned[task_name] = now
        _log.warning(
            "a message of task %s has %d bytes, warn_message_bytes is %d: pass a reference to the data instead",
            task_name,
            size,
            self._warn_bytes,
            extra={"action": "message_size", "task_name": task_name},
        )

    def _make_ready(
        self, plan: _Plan, message: OutgoingMessage, options: CallOptions, deadline: float
    ) -> None:
        """Have queue and reply queue there; after the first call neither asks the broker."""
        own_reply_to = options.get("reply_to")
        wants_reply = plan.wants_result and own_reply_to is None
        try:
            self.connect_first(options, deadline)
            if not self._destinations.is_ready(plan.destination):
                self._destinations.make_ready(plan.destination, timeout=_left(deadline))
            if wants_reply:
                message.properties.reply_to = self._backend.reply_to(timeout=_left(deadline))
        except BrokerConnectionError as exc:
            raise _not_sent(exc, message) from exc
        if own_reply_to is not None:
            message.properties.reply_to = own_reply_to

    def connect_first(self, options: CallOptions, deadline: float) -> None:
        """Connect before anything is asked of the broker, where the call says how often that may fail.

        Raises:
            BrokerConnectionError: no connection.
        """
        if options and options.get("confirm", True):
            policy = self.policy_of(options)
            if policy.counts_connections:
                connect_with_policy(self._transport, policy, timeout=_left(deadline))

    def _expect(self, plan: _Plan, message: OutgoingMessage, options: CallOptions) -> ExpectedResult:
        task_id, reply_to = message.properties.correlation_id or "", message.properties.reply_to or ""
        if not plan.wants_result:
            return UnknowableResult(f"task {task_id} was called with ignore_result, so no result is sent")
        if options.get("reply_to") is not None:
            return UnknowableResult(f"the result of task {task_id} goes to reply_to={reply_to!r}")
        return self._backend.expect(task_id, reply_to=reply_to)

    def place_of(
        self,
        task: Task[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        *,
        deadline: float,
    ) -> tuple[Destination, int | None]:
        """Where such a call goes, which is there afterwards, and its priority.

        Raises:
            UnknownQueue, TopologyMismatch, BrokerConnectionError: as `destination_of`.
        """
        plan = self._plan(task, args, kwargs, options)
        if not self._destinations.is_ready(plan.destination):
            self._destinations.make_ready(plan.destination, timeout=_left(deadline))
        return plan.destination, plan.priority

    def destination_of(self, queue_name: str) -> Destination:
        """Where a message for a queue is published; the queue is there afterwards.

        Raises:
            UnknownQueue: it is not configured and may not be created.
            TopologyMismatch: the broker holds it with other arguments.
            BrokerConnectionError: the broker cannot be asked.
        """
        _, destination = self._destinations.resolve("", (), {}, {}, {"queue": queue_name})
        if not self._destinations.is_ready(destination):
            self._destinations.make_ready(destination, timeout=self._timeout)
        return destination

    def timeout(self, options: CallOptions) -> float:
        """Seconds that one publish may take as a whole."""
        given = options.get("timeout")
        return self._timeout if given is None else given

    def publish(
        self,
        message: OutgoingMessage,
        options: CallOptions,
        deadline: float,
        on_failure: Callable[[Exception], object],
    ) -> None:
        """Send one message, and wait for the broker's confirm unless the call's options say otherwise.

        Args:
            message: to be sent.
            options: of the call.
            deadline: monotonic time at which it is given up.
            on_failure: told why it was not sent, where nobody waits for the confirm.

        Raises:
            NotSent, SendUnknown: see `Task.delay`.
        """
        if not options.get("confirm", True):
            report = partial(_report_failure, on_failure)
            self._transport.publish_nowait(message, report, timeout=_left(deadline))
            return
        policy = self.policy_of(options) if options else self._policy
        try:
            publish_with_policy(self._transport, message, policy, timeout=_left(deadline))
        except BrokerConnectionError as exc:
            raise _not_sent(exc, message) from exc

    def policy_of(self, options: CallOptions) -> PublishPolicy:
        """How often a refused publish is tried again, and whether failed connections count."""
        if not options.get("retry", self._task_settings.publish_retry):
            return ONE_ATTEMPT
        given = options.get("retry_policy")
        return self._policy if given is None else PublishPolicy.of(given, counts_connections=True)


_NO_LABELS = (None, None)


def _left(deadline: float) -> float:
    # Rounded, as errors show it: "within 30 s" and not "within 29.9998 s".
    return max(0.0, round(deadline - time.monotonic(), 2))


def note_sent(result: AsyncResult[Any], frame: Frame | None) -> None:
    """Count a call that was sent among the children of the task that sent it."""
    if frame is not None and frame.task.trail:
        frame.children.append(result.id)


def _not_sent(exc: BrokerConnectionError, message: OutgoingMessage) -> PublishError:
    return NotSent(str(exc)).about(
        exchange=message.exchange,
        routing_key=message.routing_key,
        message_id=message.properties.correlation_id or "",
    )


def _report_failure(on_failure: Callable[[Exception], object], error: PublishError | None) -> None:
    if error is not None:
        on_failure(error)
