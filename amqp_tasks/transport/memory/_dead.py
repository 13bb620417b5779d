"""Dead-lettering: the headers that a broker adds to a message that leaves a queue the other way.

See: https://www.rabbitmq.com/docs/dlx.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from amqp_tasks.message import Properties
from amqp_tasks.transport.memory._store import Stored

__all__ = ("DELIVERY_LIMIT", "EXPIRED", "MAXLEN", "REJECTED", "dead_properties", "died_in")

REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT = "rejected", "expired", "maxlen", "delivery_limit"


def _deaths(properties: Properties) -> list[dict[str, Any]]:
    # A publisher may have sent anything under this name.
    found: list[dict[str, Any]] | None = properties.headers.get("x-death")
    return [dict(each) for each in found if hasattr(each, "keys")] if isinstance(found, list) else []


def died_in(message: Stored, queue_name: str) -> bool:
    """Whether the message went round in a circle that no consumer took part in: the broker drops it."""
    deaths = _deaths(message.properties)
    return any(each.get("queue") == queue_name for each in deaths) and not any(
        each.get("reason") == REJECTED for each in deaths
    )


def dead_properties(message: Stored, queue_name: str, reason: str) -> Properties:
    """The message's properties with this death noted first; its expiration is taken away, kept in the note."""
    properties = message.properties
    deaths = _deaths(properties)
    known = next(
        (each for each in deaths if (each.get("queue"), each.get("reason")) == (queue_name, reason)), None
    )
    if known is not None:
        deaths.remove(known)
        known["count"] = int(known.get("count", 0)) + 1
    else:
        known = {
            "count": 1,
            "exchange": message.exchange,
            "queue": queue_name,
            "reason": reason,
            "routing-keys": [message.routing_key],
            "time": datetime.now(UTC).replace(microsecond=0),
        }
        if properties.expiration is not None:
            known["original-expiration"] = properties.expiration
    first = {
        "x-first-death-exchange": message.exchange,
        "x-first-death-queue": queue_name,
        "x-first-death-reason": reason,
    }
    headers = {**first, **properties.headers, "x-death": [known, *deaths]}
    return replace(properties, headers=headers, expiration=None)
