"""The message that watches a join: a task's message to look at, so that it goes where its members go, with a delay.

It carries the definition of the join, as that is gone when somebody has emptied the join's queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message._amqp import OutgoingMessage
from amqp_tasks.message._envelope import Envelope, read_payload
from amqp_tasks.message._joins import JOIN_PREFIX, is_definition
from amqp_tasks.message._mark import StepMark, read_mark
from amqp_tasks.message._process import derived_ids
from amqp_tasks.message._template import TaskTemplate
from amqp_tasks.serialization import JSON_TYPE, Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("WATCH_TASK", "JoinWatch", "first_step", "read_watch", "watch_id", "watch_message")

WATCH_TASK = "amqp_tasks.watch_join"
"""Name of the task in such a message. Workers take it before it comes to a slot."""

_TEMPLATE = TaskTemplate(WATCH_TASK, ignore_result=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWatch:
    """What is known of a join that is watched.

    Attributes:
        queue: its name.
        definition: what it is for.
        since: seconds since 1970 at which `seen` changed.
        pause: seconds until the next look.
        seen: messages in its queue at the last look.
        is_suspect: the last look found fewer than the one before.
    """

    queue: str
    definition: Mapping[str, Any]
    since: float
    pause: float
    seen: int = 1
    is_suspect: bool = False

    @property
    def anew(self) -> JoinWatch:
        """The same as it was before the first look: what the next one finds is new to it."""
        return replace(self, seen=0, is_suspect=False)

    def after(self, seconds: float, **changes: Any) -> JoinWatch:
        """The same with so many seconds until the next look."""
        return replace(self, pause=seconds, **changes)


def watch_id(queue: str) -> str:
    """The id of all messages that watch a join."""
    return next(derived_ids(queue, "watch"))


def watch_message(watch: JoinWatch, *, exchange: str, routing_key: str) -> OutgoingMessage:
    """The message, for the place where a member goes.

    Raises:
        EncodeError: an argument in the definition cannot be written.
    """
    told = {
        "queue": watch.queue, "definition": dict(watch.definition), "since": watch.since, "pause": watch.pause,
        "seen": watch.seen, "is_suspect": watch.is_suspect,
    }  # fmt: skip
    definition, mark = watch.definition, first_step(watch.definition)
    return _TEMPLATE.build(
        exchange=exchange, routing_key=routing_key, task_id=watch_id(watch.queue), kwargs=told,
        eta=watch.pause, root_id=definition.get("root_id"), parent_id=definition.get("parent_id"), kwargsrepr="{}",
        headers=None if mark is None else mark.header,
    )  # fmt: skip


def first_step(definition: Mapping[str, Any]) -> StepMark | None:
    """The first named step that waits in a join: the watch goes by its name as a dead letter, and all are of one run."""
    match definition:
        case {"steps": [{"body": {"options": {"headers": {} as headers}}}, *_]}:
            return read_mark(headers)
        case _:
            return None


def read_watch(envelope: Envelope, body: bytes, *, limits: Limits) -> JoinWatch:
    """What a message of this kind says.

    Raises:
        MalformedMessage: it is none.
    """
    told: Any = read_payload(envelope, body, accept=(JSON_TYPE,), limits=limits).kwargs
    match told:
        case {
            "queue": str(queue), "definition": dict(), "since": float() | int() as since,
            "pause": float() | int() as pause, "seen": int(seen), "is_suspect": bool(is_suspect),
        } if queue.startswith(JOIN_PREFIX) and is_definition(told["definition"]):  # fmt: skip
            return JoinWatch(
                queue=queue, definition=told["definition"], since=float(since), pause=float(pause), seen=seen,
                is_suspect=is_suspect,
            )  # fmt: skip
        case _:
            raise MalformedMessage(
                DeadLetterReason.BAD_BODY, "no watch of a workflow's join", task_id=envelope.id
            )
