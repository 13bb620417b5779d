"""A received task message, to be sent once more: a retry, a snooze."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from amqp_tasks.errors import MessageTooLarge
from amqp_tasks.message._amqp import SIGNED_AS_TASK, HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._dead_letter import kept_headers
from amqp_tasks.message._envelope import Envelope
from amqp_tasks.message._headers import SIGNATURE_HEADER
from amqp_tasks.serialization import compress, dumps

__all__ = ("new_body", "run_again")


def run_again(
    properties: Properties,
    body: bytes,
    *,
    exchange: str,
    routing_key: str,
    changes: Mapping[str, HeaderValue],
    priority: int | None = None,
    delay: float = 0.0,
    is_signed_anew: bool = False,
) -> OutgoingMessage:
    """The message of the next run: same id, properties and headers but for the changes.

    Left out: the broker's own headers (x-death among them: brokers drop what seems to go round in circles), `CC`/`BCC`,
    what cannot be published again, and `expiration`, which would run from the new publish; the header `expires` stays.

    Args:
        properties: as received.
        body: as received, or from `new_body`.
        exchange: where to publish.
        routing_key: with which key.
        changes: headers that are added or replaced.
        priority: None keeps it.
        delay: seconds; 0 is at once.
        is_signed_anew: what it was signed for has changed, by somebody who has checked that: its signature does not fit any more. What
            was not signed is not signed then, either.
    """
    headers, _ = kept_headers(properties.all_headers())
    signature = headers.pop(SIGNATURE_HEADER, None) if is_signed_anew else None
    return OutgoingMessage(
        exchange=exchange,
        routing_key=routing_key,
        body=body,
        is_relayed=True,
        delay=delay if delay > 0 else None,
        signed_as=None if signature is None else SIGNED_AS_TASK,
        properties=replace(
            properties,
            headers={**headers, **changes},
            template=None,
            expiration=None,
            user_id=None,
            priority=properties.priority if priority is None else priority,
        ),
    )


def new_body(
    envelope: Envelope,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any],
    *,
    max_bytes: int,
) -> bytes:
    """The body of a message with other arguments, written and compressed as the message is.

    Raises:
        EncodeError: an argument cannot be written; the message names it.
        MessageTooLarge: more than `max_bytes`.
        ConfigurationError: the message came in a serialization that cannot be written here.
    """
    _, _, body = dumps(
        envelope.content_type or "json",
        (list(args), dict(kwargs), dict(embed)),
        parts=("args", "kwargs", "embed"),
    )
    if envelope.compression:
        body, _ = compress(body, envelope.compression)
    if len(body) > max_bytes:
        raise MessageTooLarge(
            f"the arguments of the retry make {len(body)} bytes, max_message_bytes is {max_bytes}"
        )
    return body
