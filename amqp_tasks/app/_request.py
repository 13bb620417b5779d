"""The request of a running task: a typed, read-only view of its message, one per execution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict

from amqp_tasks.errors import DepthLimitExceeded

if TYPE_CHECKING:
    from amqp_tasks.app._retry import Again
    from amqp_tasks.app._task import Task
    from amqp_tasks.message import StepMark

__all__ = (
    "DEPTH_HEADER",
    "FRAME",
    "DeliveryInfo",
    "Frame",
    "Request",
    "UnreadRequest",
    "arguments_of",
    "child_depth",
    "current_frame",
    "current_request",
    "enclosing_frame",
)


DEPTH_HEADER = "x-amqp-tasks-depth"
"""Header that counts how many tasks stand between a call and the first one."""


class DeliveryInfo(TypedDict, total=False):
    """How the message came: `exchange`, `routing_key`, `priority`, `redelivered` and the `queue` it lay in."""

    exchange: str
    routing_key: str
    priority: int | None
    redelivered: bool
    queue: str


# Not frozen and without slots: one is built per execution on the hot path, and `vars(self.request)` must work.
@dataclass(kw_only=True)
class Request:
    """What a task can know about its own call; `self.request` in a bound task. Treat as read-only.

    Attributes:
        id: the task id; None when the task was called directly as a function.
        task: the registered name.
        args: positional arguments after validation.
        kwargs: keyword arguments after validation.
        root_id: id of the first task of the workflow.
        parent_id: id of the task that sent this one.
        group: id of the group it belongs to.
        group_index: its place in the group.
        retries: how often it was retried by its own wish; 0 first.
        eta: it was not to start before this time (aware).
        expires: it is not started after this time (aware).
        shadow: display name in logs.
        is_eager: runs through `apply()` or `task_always_eager`.
        called_directly: called as a plain function, without a message.
        delivery_info: exchange, routing key, priority, redelivered, queue.
        reply_to: queue the result goes to.
        correlation_id: id under which the result is sent.
        hostname: node name of the worker.
        origin: process that sent the message.
        timelimit: (hard, soft) in seconds.
        headers: the caller's own headers.
        properties: AMQP properties of the caller's own: `message_id`, `app_id`, `type`, `user_id`, `timestamp` (seconds
            since 1970), as far as it set them; with a `task_id` of its own there is always a `message_id`.
        ignore_result: the caller's wish; None leaves it to the task.
        depth: how many tasks stand between this one and the call that began the chain of calls.
        lang: language of the sender.
        argsrepr: arguments as shown in logs.
        kwargsrepr: keyword arguments as shown in logs.
        replaced_task_nesting: how often a task under this id was replaced.
        stamps: by name, what the caller has stamped it with, see `Signature.stamp`.
        joins: the joins of a workflow that wait for its outcome: queue, index and size of each.
        mark: which step of which `Workflow` it is; None: of none.
        idempotency_key: the caller's key for calls that are the same one; None without.
        callbacks: signatures that are called with its result; None without.
        errbacks: signatures that are called when it fails; None without.
        chain: the steps that follow it, the next one last; None without.
        chord: the body that stock Celery is to run after its group; None without.
    """

    id: str | None = None
    task: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    eta: datetime | None = None
    expires: datetime | None = None
    shadow: str | None = None
    is_eager: bool = False
    called_directly: bool = False
    delivery_info: DeliveryInfo = field(default_factory=DeliveryInfo)
    reply_to: str | None = None
    correlation_id: str | None = None
    hostname: str = ""
    origin: str | None = None
    timelimit: tuple[float | None, float | None] = (None, None)
    headers: dict[str, Any] = field(default_factory=dict[str, Any])
    properties: dict[str, Any] = field(default_factory=dict[str, Any])
    ignore_result: bool | None = None
    depth: int = 0
    lang: str = "py"
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    replaced_task_nesting: int = 0
    stamps: dict[str, Any] = field(default_factory=dict[str, Any])
    joins: Sequence[tuple[str, int, int]] = ()
    mark: StepMark | None = None
    idempotency_key: str | None = None
    callbacks: Sequence[Mapping[str, Any]] | None = None
    errbacks: Sequence[Mapping[str, Any]] | None = None
    chain: Sequence[Mapping[str, Any]] | None = None
    chord: Mapping[str, Any] | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """An annotation of an errback's first argument: pydantic takes a request as it is."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    @property
    def is_followed(self) -> bool:
        """Whether further steps of its chain follow it."""
        return bool(self.chain)

    @property
    def stamped_headers(self) -> list[str]:
        """The names of its stamps."""
        return list(self.stamps)


class UnreadRequest(Request):
    """The request of a received message, made when somebody looks at it: most tasks never do.

    The first look turns it into a plain `Request`. Thread safety: any thread; a race only does the work twice.

    Args:
        make: the request as the message tells it; what was set before the first look wins over it.
    """

    def __init__(self, make: Callable[[], Request]) -> None:
        self._make = make

    def __getattribute__(self, name: str) -> Any:
        own: dict[str, Any] = object.__getattribute__(self, "__dict__")
        make: Callable[[], Request] | None = own.get("_make")
        if make is not None:
            told: dict[str, Any] = vars(make())
            own.update(told | own)
            object.__setattr__(self, "__class__", Request)
            own.pop("_make", None)
        return object.__getattribute__(self, name)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # Where it is asked of the class, before any attribute of the instance. This is the first look, and what is found is
        # that of a plain request.
        return self.__reduce_ex__(protocol)


def arguments_of(request: Request) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """What the task got, without a look at the rest of an `UnreadRequest`."""
    own: dict[str, Any] = object.__getattribute__(request, "__dict__")
    return (own["args"], own["kwargs"]) if "args" in own else (request.args, request.kwargs)


@dataclass(slots=True, eq=False)
class Frame:
    """One execution in progress: what the context variable holds. `parent` is the execution it was called in.

    `children` is appended to by calls made in this execution, from any thread that inherited the context. `again` is
    the run that is to follow, `added` how many tasks it added to the header it is in, `max_retries` the limit that the last `retry` was given. `is_over`: its outcome is known,
    and its hooks run. `told_progress`: when it last sent how far it has got (monotonic). `is_revoked`: whether its task is
    revoked by now; any thread.
    """

    task: Task[..., Any]
    request: Request
    parent: Frame | None = None
    added: int = 0
    is_dispatching: bool = False
    children: list[str] = field(default_factory=list[str])
    again: Again | None = None
    max_retries: int | None = None
    is_over: bool = False
    told_progress: float = -math.inf
    is_revoked: Callable[[], bool] = bool


FRAME: ContextVar[Frame | None] = ContextVar("amqp_tasks_frame", default=None)


def current_frame() -> Frame | None:
    """The innermost execution of this context, or None outside of a task."""
    return FRAME.get()


def current_request() -> Request | None:
    """The request of the task that runs in this context, or None outside of a task."""
    frame = FRAME.get()
    return frame.request if frame is not None else None


def enclosing_frame() -> Frame | None:
    """The innermost execution that came by a message; executions called directly are passed over."""
    frame = FRAME.get()
    while frame is not None and frame.request.called_directly:
        frame = frame.parent
    return frame


def child_depth(frame: Frame, limit: int | None) -> int:
    """The depth of a call made in `frame`.

    Raises:
        DepthLimitExceeded: it is more than `limit`.
    """
    depth = frame.request.depth + 1
    if limit is not None and depth > limit:
        raise DepthLimitExceeded(frame.task.name, limit)
    return depth
