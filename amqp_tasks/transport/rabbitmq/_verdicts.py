"""How a message ends that was not confirmed: which error says it truly.

`NotSent` is a promise that no copy is stored. A message that was written before a connection was lost may be
stored whatever the broker says about its next copy, so such a message ends with `SendUnknown`.
"""

from __future__ import annotations

from collections.abc import Iterable

from amqp_tasks.errors import (
    BrokerBlocked,
    BrokerConnectionError,
    MalformedMessage,
    NotSent,
    PublishError,
    PublishNacked,
    SendUnknown,
    UnroutableError,
)
from amqp_tasks.message import Properties
from amqp_tasks.transport.rabbitmq._codec import decode_properties
from amqp_tasks.transport.rabbitmq._fastwire import Returned
from amqp_tasks.transport.rabbitmq._pending import Pending

__all__ = ("deadline_error", "find_returned", "nacked", "unroutable")


def unroutable(pending: Pending) -> PublishError:
    """The broker returned the message."""
    message = pending.message
    text = f"no queue takes exchange {message.exchange!r}, routing key {message.routing_key!r} ({pending.returned})"
    if pending.maybe_stored:
        return SendUnknown(f"{text}; a copy that was written before a connection was lost may be stored")
    return UnroutableError(f"{text}: declare the queue, or mend task_routes")


def nacked(pending: Pending) -> PublishError:
    """The broker answered `basic.nack`."""
    message = pending.message
    text = (
        f"the broker refused the message (basic.nack) for exchange {message.exchange!r}, routing key"
        f" {message.routing_key!r}: is a queue full (overflow=reject-publish)?"
    )
    if pending.maybe_stored:
        return SendUnknown(f"{text} A copy that was written before a connection was lost may be stored")
    return PublishNacked(text)


def deadline_error(
    pending: Pending,
    why: str,
    *,
    is_returned: bool,
    blocked_reason: str | None,
    last_error: BrokerConnectionError | None,
) -> PublishError:
    """Time is up, or there will be no connection any more (`why`)."""
    if is_returned:
        return unroutable(pending)
    alarm = f"the broker is blocked: {blocked_reason}" if blocked_reason is not None else ""
    if pending.writes:
        detail = f" ({alarm})" if alarm else ""
        return SendUnknown(f"{why}, and the broker has not confirmed the message{detail}: it may be stored")
    if alarm:
        return BrokerBlocked(f"{why}; {alarm}", reason=blocked_reason or "")
    detail = f" ({last_error})" if last_error is not None else ""
    return NotSent(f"{why}, and the message could not be written{detail}: it is not stored")


def find_returned(returned: Returned, unconfirmed: Iterable[Pending]) -> Pending | None:
    """The message that a `basic.return` is about: the first that is equal, else the first with its address.

    A return without a message would let the confirm that follows pass for success, so the address alone has to do when a
    broker hands back other properties than it was given.
    """
    try:
        properties: Properties | None = decode_properties(returned.header)
    except MalformedMessage:
        properties = None
    same_address: Pending | None = None
    for pending in unconfirmed:
        message = pending.message
        if (
            pending.returned
            or not message.mandatory
            or message.routing_key != returned.routing_key
            or message.exchange != returned.exchange
        ):
            continue
        own = message.properties
        if (
            properties is not None
            and own.correlation_id == properties.correlation_id
            and own.message_id == properties.message_id
            and message.body == returned.body
        ):
            return pending
        same_address = same_address or pending
    return same_address
