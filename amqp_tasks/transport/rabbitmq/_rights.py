"""Which rights this user lacks. A script, no I/O of its own.

No method asks for a right. But RabbitMQ looks at rights before it looks at anything else: so each is asked for by a method that
needs it and can never work, or changes nothing. Refused for another reason, or done, says that the right is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from pika import BasicProperties

from amqp_routing import Binding, DestinationKind
from amqp_tasks.errors import BrokerOperationError
from amqp_tasks.transport._delay import DUE_EXCHANGE
from amqp_tasks.transport._rights import DEFAULT_EXCHANGE, Permission, Right
from amqp_tasks.transport.rabbitmq._consume_channel import RESOURCE_LOCKED
from amqp_tasks.transport.rabbitmq._operations import Ask, Script
from amqp_tasks.transport.rabbitmq._topology import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    may_consume_script,
    unbind_script,
)

__all__ = ("refused_rights_script",)

_QUOTED = 150
"""Characters of a name that surely fit into a reply text, which has 255 bytes for all it says."""


def refused_rights_script(rights: Sequence[Right]) -> Script[dict[Right, BrokerOperationError]]:
    """`Transport.refused_rights`."""
    refused: dict[Right, BrokerOperationError] = {}
    for right in rights:
        error = yield from _refusal(right, rights)
        if error is not None:
            refused[right] = error
    return refused


def _refusal(right: Right, rights: Sequence[Right]) -> Script[BrokerOperationError | None]:
    match right.permission, right.kind:
        case Permission.READ, DestinationKind.EXCHANGE:
            return (yield from _refusal_to_read(right.name, rights))
        case Permission.CONFIGURE, _:
            script = _configure_script(right)
        case Permission.READ, _:
            script = may_consume_script(right.name)
        case _, DestinationKind.EXCHANGE:
            script = _publish_script(right.name)
        case _:
            script = _unbind_script(right, DUE_EXCHANGE)
    error = yield from _answer(script)
    return error if error is not None and _is_about(error, right.kind, right.name) else None


def _refusal_to_read(exchange: str, rights: Sequence[Right]) -> Script[BrokerOperationError | None]:
    """A binding has to be written to its destination, and that is looked at first: so one is needed that may be written."""
    error: BrokerOperationError | None = None
    for other in rights:
        if other.permission is Permission.WRITE and other.name not in {exchange, DEFAULT_EXCHANGE}:
            error = yield from _answer(_unbind_script(other, exchange))
            if error is None or not _is_about(error, other.kind, other.name):
                return error
    return error


def _answer(script: Script[Any]) -> Script[BrokerOperationError | None]:
    try:
        yield from script
    except BrokerOperationError as exc:
        if exc.reply_code == ACCESS_REFUSED:
            return exc
        if exc.reply_code not in {NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED}:
            raise
    return None


def _is_about(error: BrokerOperationError, kind: DestinationKind, name: str) -> bool:
    """Whether it is this right that is refused. (Which permission, only newer versions say: 'write access to queue …'.)"""
    return f"access to {kind.value} '{name}'"[:_QUOTED] in error.reply_text


def _configure_script(right: Right) -> Script[None]:
    """An argument of the wrong type: refused for what is there, as it has another, and for what is not."""
    asked: dict[str, Any] = {right.kind.value: right.name, "durable": True}
    if right.kind is DestinationKind.EXCHANGE:
        asked |= {"exchange_type": "topic", "arguments": {"alternate-exchange": 1}}
    else:
        asked |= {"arguments": {"x-expires": "never"}}
    yield Ask(f"{right.kind.value}_declare", asked, f"configuring {right.kind.value} {right.name!r}")


def _publish_script(exchange: str) -> Script[None]:
    """A message whose expiration is no number, for nobody: the broker takes none such."""
    name = "" if exchange == DEFAULT_EXCHANGE else exchange
    properties = BasicProperties(expiration="never")
    asked = {"exchange": name, "routing_key": uuid.uuid4().hex, "body": b"", "properties": properties}
    doing = f"publishing to exchange {exchange!r}"
    yield Ask("basic_publish", asked, doing, is_answered=False)
    yield Ask("basic_qos", {"prefetch_count": 1}, doing)


def _unbind_script(right: Right, source: str) -> Script[None]:
    """Remove a binding that is not there."""
    key = uuid.uuid4().hex
    yield from unbind_script((Binding(source, right.name, routing_key=key, destination_kind=right.kind),))
