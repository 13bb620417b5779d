"""The `x-` arguments of a queue: their fields, their wire form and which queue types take them.

Which type takes what was tried on RabbitMQ 3.10 and 4.0; both refuse the same (406, invalid arg).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from amqp_routing._table import TableValue

__all__ = (
    "ARGUMENT_OF_FIELD",
    "FIELD_OF_ARGUMENT",
    "ONLY_ARGUMENTS",
    "Argument",
    "DeadLetterStrategy",
    "DelayedRetryType",
    "Overflow",
    "QueueType",
    "Unit",
)


class QueueType(StrEnum):
    """What keeps the messages."""

    CLASSIC = "classic"
    """On one node. The only type with priorities, exclusive and non-durable queues."""
    QUORUM = "quorum"
    """Replicated and always durable; counts deliveries."""
    STREAM = "stream"
    """A replicated log that is read, not emptied."""


class Overflow(StrEnum):
    """What happens when a queue has reached its maximum length."""

    DROP_HEAD = "drop-head"
    """The oldest message is dropped, or dead-lettered where there is an exchange for that."""
    REJECT_PUBLISH = "reject-publish"
    """The publisher gets a nack."""
    REJECT_PUBLISH_DLX = "reject-publish-dlx"
    """The publisher gets a nack, and the message is dead-lettered. Classic queues only."""


class DeadLetterStrategy(StrEnum):
    """How sure a quorum queue is that a dead letter arrived."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"
    """Kept until confirmed by the target; needs `overflow=Overflow.REJECT_PUBLISH`."""


class DelayedRetryType(StrEnum):
    """Which messages that come back to a quorum queue wait before they are delivered again; RabbitMQ 4.3 and later."""

    DISABLED = "disabled"
    """None."""
    ALL = "all"
    """Each."""
    FAILED = "failed"
    """Those whose delivery count went up: by `basic.reject`, by a consumer that went away."""
    RETURNED = "returned"
    """Those whose delivery count did not: by `basic.nack`, by a consumer timeout."""


class Unit(Enum):
    """What a field holds, hence how it is written and what is allowed in it."""

    COUNT = "a whole number"
    SECONDS = "seconds"
    TEXT = "text"
    FLAG = "true or false"


_CLASSIC, _QUORUM, _STREAM = QueueType.CLASSIC, QueueType.QUORUM, QueueType.STREAM
_MESSAGE_QUEUES = frozenset((_CLASSIC, _QUORUM))


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One `x-` argument that has a field of its own."""

    name: str
    unit: Unit
    types: frozenset[QueueType] = _MESSAGE_QUEUES
    minimum: float = 0
    maximum: float | None = None

    def encode(self, value: TableValue) -> TableValue:
        """The value on the wire; `None` leaves the argument out."""
        match self.unit:
            case Unit.SECONDS if value is not None:
                return round(value * 1000)
            case Unit.FLAG:
                return True if value else None
            case Unit.TEXT if isinstance(value, StrEnum):
                return value.value
            case _:
                return value


ARGUMENT_OF_FIELD: Mapping[str, Argument] = {
    "max_priority": Argument(
        name="x-max-priority", unit=Unit.COUNT, types=frozenset((_CLASSIC,)), maximum=255
    ),
    "dead_letter_exchange": Argument(name="x-dead-letter-exchange", unit=Unit.TEXT),
    "dead_letter_routing_key": Argument(name="x-dead-letter-routing-key", unit=Unit.TEXT),
    "dead_letter_strategy": Argument(
        name="x-dead-letter-strategy", unit=Unit.TEXT, types=frozenset((_QUORUM,))
    ),
    "delivery_limit": Argument(name="x-delivery-limit", unit=Unit.COUNT, types=frozenset((_QUORUM,))),
    "message_ttl": Argument(name="x-message-ttl", unit=Unit.SECONDS),
    "expires": Argument(name="x-expires", unit=Unit.SECONDS, minimum=0.001),
    "max_length": Argument(name="x-max-length", unit=Unit.COUNT),
    "max_length_bytes": Argument(name="x-max-length-bytes", unit=Unit.COUNT, types=frozenset(QueueType)),
    "overflow": Argument(name="x-overflow", unit=Unit.TEXT),
    "single_active_consumer": Argument(name="x-single-active-consumer", unit=Unit.FLAG),
    "consumer_timeout": Argument(
        name="x-consumer-timeout", unit=Unit.SECONDS, types=frozenset(QueueType), minimum=0.001
    ),
    "delayed_retry_type": Argument(name="x-delayed-retry-type", unit=Unit.TEXT, types=frozenset((_QUORUM,))),
    "delayed_retry_min": Argument(
        name="x-delayed-retry-min", unit=Unit.SECONDS, types=frozenset((_QUORUM,)), minimum=0.001
    ),
    "delayed_retry_max": Argument(
        name="x-delayed-retry-max", unit=Unit.SECONDS, types=frozenset((_QUORUM,)), minimum=0.001
    ),
}
"""Every field of `Queue` that becomes an argument, in the order of declaration."""

FIELD_OF_ARGUMENT: Mapping[str, str] = {
    "x-queue-type": "type",
    **{argument.name: field_name for field_name, argument in ARGUMENT_OF_FIELD.items()},
}

ONLY_ARGUMENTS: Mapping[str, frozenset[QueueType]] = {
    "x-queue-mode": frozenset((_CLASSIC,)),
    "x-queue-version": frozenset((_CLASSIC,)),
    "x-queue-master-locator": frozenset((_CLASSIC,)),
    "x-quorum-initial-group-size": frozenset((_QUORUM,)),
    "x-max-in-memory-length": frozenset((_QUORUM,)),
    "x-max-in-memory-bytes": frozenset((_QUORUM,)),
    "x-initial-cluster-size": frozenset((_STREAM,)),
    "x-max-age": frozenset((_STREAM,)),
    "x-stream-max-segment-size-bytes": frozenset((_STREAM,)),
}
"""Arguments without a field that only some queue types take; any other goes to the broker as it is."""
