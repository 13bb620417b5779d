"""The dead letter of what was to follow a task and could not be sent: its call, as far as it can be written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqp_tasks.canvas import signature
from amqp_tasks.message import (
    SIGNED_AS_TASK,
    DeadLetterReason,
    OutgoingMessage,
    TaskTemplate,
    bounded_repr,
    check_task_id,
    dead_letter,
    new_task_id,
)
from amqp_tasks.worker._accounts import error_text

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("follow_up_text", "unsent_letter")

_NO_SIGNATURE = "no signature"


def follow_up_text(place: str, task_id: str | None) -> str:
    """What something is to the task that it follows; None for what follows no task, as the body of a client's chord."""
    return place if task_id is None else f"{place} of task {task_id}"


def unsent_letter(
    part: Any,
    args: Sequence[Any],
    *,
    queue_name: str,
    what: str,
    app: App,
    error: Exception,
    hostname: str,
    max_bytes: int,
) -> OutgoingMessage:
    """A dead letter with the call alone, so that it runs alone where it is put back: who waits for what follows it was told.

    Args:
        part: what could not be sent; came in a message, and may be anything.
        args: of its first task, before its own.
        queue_name: whose dead letters it joins.
        what: see `follow_up_text`.
        app: whose tasks say which arguments nobody is shown.
        error: why it could not be sent.
        hostname: the node.
        max_bytes: of its body; what makes it larger is left out.
    """
    call = _call(part, args, app, max_bytes)
    letter = dead_letter(
        queue_name=queue_name,
        exchange="",
        routing_key=queue_name,
        properties=call.properties,
        body=call.body,
        reason=DeadLetterReason.NOT_SENT,
        detail=f"{what} cannot be sent: {error_text(error)}",
        error_type=type(error).__qualname__,
        worker=hostname,
    )
    # From here on the broker holds a call that it did not hold before.
    return replace(letter, is_task=True, signed_as=SIGNED_AS_TASK)


def _call(part: Any, args: Sequence[Any], app: App, max_bytes: int) -> OutgoingMessage:
    """The call with all its arguments, or with its own, or with none. What is no signature is shown."""
    try:
        found = signature(part)
        template, task_id = TaskTemplate(found.task), check_task_id(found.id or new_task_id())
    except Exception:  # noqa: BLE001 - it may be anything
        return TaskTemplate(_NO_SIGNATURE).build(exchange="", routing_key="", argsrepr=bounded_repr(part))
    # Of all arguments that it was to get, as each is known by its place; None shows those that are in the message.
    argsrepr, kwargsrepr = app.calls.labels(app.calls.named(found.task), (*args, *found.args), found.kwargs)
    for before in (args, ()):
        with suppress(Exception, SystemExit):
            made = template.build(
                exchange="", routing_key="", task_id=task_id, args=(*before, *found.args), kwargs=found.kwargs,
                argsrepr=argsrepr, kwargsrepr=kwargsrepr,
            )  # fmt: skip
            if len(made.body) <= max_bytes:
                return made
    argsrepr = bounded_repr(found.args) if argsrepr is None else argsrepr
    return template.build(exchange="", routing_key="", task_id=task_id, argsrepr=argsrepr)
