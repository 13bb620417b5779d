"""A message that is moved from one queue to another: as it is."""

from __future__ import annotations

from dataclasses import replace

from amqp_tasks.message._amqp import OutgoingMessage, Properties
from amqp_tasks.message._headers import is_table_value

__all__ = ("moved",)

_OF_THE_QUEUE = frozenset({"x-delivery-count", "x-acquired-count"})
"""What a queue counts, and counts anew in another."""
_ROUTERS = frozenset({"CC", "BCC"})
"""RabbitMQ routes by these; they would send copies to where the original has gone already."""


def moved(properties: Properties, body: bytes, queue_name: str) -> OutgoingMessage:
    """The message for `queue_name`: body, properties and headers, those that tell of a death included.

    Left out: the counts of deliveries, `CC`/`BCC`, what cannot be published again, `user_id` (another user must not say it)
    and `expiration`, which would run from the new publish; the header `expires` stays.
    """
    left_out = _OF_THE_QUEUE | _ROUTERS
    headers = {
        name: value
        for name, value in properties.all_headers().items()
        if name not in left_out and is_table_value({name: value})
    }
    return OutgoingMessage(
        exchange="",
        routing_key=queue_name,
        body=body,
        is_relayed=True,
        properties=replace(properties, headers=headers, template=None, expiration=None, user_id=None),
    )
