"""Queues as values, with the combinations that RabbitMQ refuses as errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from amqp_routing._declared import Declared
from amqp_routing._errors import DeclarationError
from amqp_routing._names import enum_member, name_faults, short_repr
from amqp_routing._queue_arguments import (
    ARGUMENT_OF_FIELD,
    FIELD_OF_ARGUMENT,
    ONLY_ARGUMENTS,
    Argument,
    DeadLetterStrategy,
    DelayedRetryType,
    Overflow,
    QueueType,
    Unit,
)
from amqp_routing._table import MAX_SHORT_STRING, Table, TableValue, table_faults

__all__ = ("Queue",)

MAX_NUMBER = 10**15
"""More than any limit means; keeps milliseconds within a signed 64-bit integer."""

_ENUM_OF_FIELD: Mapping[str, type[StrEnum]] = {
    "type": QueueType,
    "dead_letter_strategy": DeadLetterStrategy,
    "overflow": Overflow,
    "delayed_retry_type": DelayedRetryType,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Queue(Declared):
    """A queue, equal to another that would be declared alike.

    Args:
        name: up to 255 bytes; names that begin with `amq.` belong to the broker.
        type: quorum, classic or stream.
        durable: it outlives a restart of the broker; only classic queues may say no.
        exclusive: only the declaring connection may use it, and it goes with that connection; classic only.
        auto_delete: it is deleted when its last consumer leaves; classic only.
        max_priority: the highest priority it orders by, 0 to 255; classic only.
        dead_letter_exchange: where rejected, expired and surplus messages go; "" is the default exchange.
        dead_letter_routing_key: with which key; `None`: the one they came with.
        dead_letter_strategy: quorum only; `None`: at most once.
        delivery_limit: how often a message may come back before it is dead-lettered, at least 0; quorum only.
            `None` is the broker's own (20 since RabbitMQ 4.0, none before).
        message_ttl: seconds a message may wait, to the millisecond; 0: only what can be delivered at once.
        expires: seconds the queue may stay unused before it is deleted, at least a millisecond.
        max_length: the most ready messages.
        max_length_bytes: the most bytes of ready messages; of a stream, the size at which old data goes.
        overflow: what happens at the maximum; `None`: the oldest message goes.
        single_active_consumer: one consumer at a time gets messages, another takes over when it leaves.
        consumer_timeout: seconds a delivery may stay unacknowledged; RabbitMQ before 3.12 ignores it.
        delayed_retry_type: which messages that come back wait in the queue before they are delivered again, for
            `delayed_retry_min` seconds times their delivery count; quorum only, RabbitMQ before 4.3 ignores it.
        delayed_retry_min: seconds, at least a millisecond.
        delayed_retry_max: seconds that one wait takes at most; `None`: any.
        arguments: further declaration arguments that have no field here, e.g. `x-max-age` of a stream.
        consumer_arguments: what consumers of this queue send along, e.g. `{"x-priority": 10}`. Not part of the
            declaration, hence not compared.

    Raises:
        DeclarationError: RabbitMQ would refuse the queue, or accept and ignore a part of it; all faults are listed.

    See: queue.declare; https://www.rabbitmq.com/docs/queues, /docs/quorum-queues, /docs/streams, /docs/dlx.
    """

    name: str = field(kw_only=False)
    type: QueueType = QueueType.QUORUM
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    max_priority: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    dead_letter_strategy: DeadLetterStrategy | None = None
    delivery_limit: int | None = None
    message_ttl: float | None = None
    expires: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: Overflow | None = None
    single_active_consumer: bool = False
    consumer_timeout: float | None = None
    delayed_retry_type: DelayedRetryType | None = None
    delayed_retry_min: float | None = None
    delayed_retry_max: float | None = None
    arguments: Mapping[str, TableValue] = field(default_factory=Table)
    consumer_arguments: Mapping[str, TableValue] = field(default_factory=Table)

    def __post_init__(self) -> None:
        for field_name, enum in _ENUM_OF_FIELD.items():
            value = getattr(self, field_name)
            if value is not None:
                member = enum_member(enum, value, subject=f"queue {self.name!r}", field_name=field_name)
                object.__setattr__(self, field_name, member)
        faults = tuple(_faults(self))
        if faults:
            raise DeclarationError(f"queue {self.name!r}", faults)
        object.__setattr__(self, "arguments", Table(self.arguments))
        object.__setattr__(self, "consumer_arguments", Table(self.consumer_arguments))

    def declared_arguments(self) -> dict[str, TableValue]:
        """The argument table of queue.declare, new on each call; the queue type is always said."""
        table: dict[str, TableValue] = {"x-queue-type": self.type.value}
        for field_name, argument in ARGUMENT_OF_FIELD.items():
            value = argument.encode(getattr(self, field_name))
            if value is not None:
                table[argument.name] = value
        return {**table, **Table(self.arguments).plain()}

    def _declaration(self) -> tuple[object, ...]:
        flags = (self.durable, self.exclusive, self.auto_delete)
        return (self.name, *flags, Table(self.declared_arguments()))

    def __repr__(self) -> str:
        return short_repr(self)


def _faults(queue: Queue) -> Iterator[str]:
    yield from name_faults(queue.name)
    yield from _flag_faults(queue)
    for field_name, argument in ARGUMENT_OF_FIELD.items():
        value = getattr(queue, field_name)
        if value is not None and value is not False:
            yield from _field_faults(queue, field_name, argument, value)
    yield from _dead_letter_faults(queue)
    yield from _overflow_faults(queue)
    yield from _delayed_retry_faults(queue)
    yield from _argument_faults(queue)
    yield from table_faults(queue.consumer_arguments, path="consumer_arguments")


def _flag_faults(queue: Queue) -> Iterator[str]:
    if queue.type is QueueType.CLASSIC:
        return
    remedy = "leave it out or use type=QueueType.CLASSIC"
    if not queue.durable:
        yield f"a {queue.type} queue is always durable: {remedy}"
    if queue.exclusive:
        yield f"a {queue.type} queue cannot be exclusive: {remedy}"
    if queue.auto_delete:
        yield f"a {queue.type} queue cannot be auto_delete: {remedy}, or use expires"


def _field_faults(queue: Queue, field_name: str, argument: Argument, value: TableValue) -> Iterator[str]:
    if queue.type not in argument.types:
        yield f"a {queue.type} queue takes no {field_name}: {_type_remedy(field_name, argument.types)}"
    elif argument.unit is Unit.TEXT:
        if not isinstance(value, str) or len(value.encode()) > MAX_SHORT_STRING:
            yield f"{field_name} is {value!r}, expected text of at most {MAX_SHORT_STRING} bytes"
    elif argument.unit is Unit.FLAG:
        if not isinstance(value, bool):
            yield f"{field_name} is {value!r}, expected True or False"
    else:
        yield from _number_faults(field_name, argument, value)


def _type_remedy(field_name: str, types: frozenset[QueueType]) -> str:
    names = " or ".join(f"QueueType.{kind.name}" for kind in QueueType if kind in types)
    if field_name == "max_priority":
        return f"use type={names}, or a queue for each level"
    return f"leave it out or use type={names}"


def _number_faults(field_name: str, argument: Argument, value: TableValue) -> Iterator[str]:
    fits = isinstance(value, int | float) if argument.unit is Unit.SECONDS else isinstance(value, int)
    at_most = "" if argument.maximum is None else f" and at most {argument.maximum:g}"
    expected = f"expected {argument.unit.value}, at least {argument.minimum:g}{at_most}"
    if isinstance(value, bool) or not fits:
        yield f"{field_name} is {value!r}, {expected}"
    elif field_name == "delivery_limit" and value == -1:
        yield (
            "delivery_limit is -1, which RabbitMQ before 4.0 takes for 'drop at the first return': "
            "give a high number instead"
        )
    elif not argument.minimum <= value <= (argument.maximum or MAX_NUMBER):
        yield f"{field_name} is {value!r}, {expected}"


def _dead_letter_faults(queue: Queue) -> Iterator[str]:
    if queue.dead_letter_exchange is None:
        if queue.dead_letter_routing_key is not None:
            yield 'dead_letter_routing_key without dead_letter_exchange: add one ("" is the default exchange)'
        if queue.dead_letter_strategy is DeadLetterStrategy.AT_LEAST_ONCE:
            yield 'dead_letter_strategy without dead_letter_exchange: add one ("" is the default exchange)'
    at_least_once = queue.dead_letter_strategy is DeadLetterStrategy.AT_LEAST_ONCE
    # The broker takes the declaration, logs a warning and falls back to at-most-once.
    if at_least_once and queue.overflow is not Overflow.REJECT_PUBLISH:
        yield "at-least-once dead-lettering works with overflow=Overflow.REJECT_PUBLISH only: set it"


def _overflow_faults(queue: Queue) -> Iterator[str]:
    if queue.overflow is Overflow.REJECT_PUBLISH_DLX and queue.type is QueueType.QUORUM:
        # Accepted, and then the oldest message is dropped instead.
        yield "a quorum queue ignores overflow 'reject-publish-dlx': use Overflow.REJECT_PUBLISH or DROP_HEAD"


def _delayed_retry_faults(queue: Queue) -> Iterator[str]:
    least, most = queue.delayed_retry_min, queue.delayed_retry_max
    if queue.delayed_retry_type in (None, DelayedRetryType.DISABLED):
        for name, value in (("delayed_retry_min", least), ("delayed_retry_max", most)):
            if value is not None:
                yield f"{name} without delayed_retry_type has no effect: add DelayedRetryType.FAILED, say"
    elif least is None:
        yield f"delayed_retry_type {queue.delayed_retry_type.value!r} without delayed_retry_min: add one"
    # What is no number was named above.
    elif isinstance(most, int | float) and isinstance(least, int | float) and most < least:  # pyright: ignore[reportUnnecessaryIsInstance]
        yield f"delayed_retry_max is {most!r}, less than delayed_retry_min ({least!r})"


def _argument_faults(queue: Queue) -> Iterator[str]:
    yield from table_faults(queue.arguments)
    for name in queue.arguments:
        field_name = FIELD_OF_ARGUMENT.get(name)
        types = ONLY_ARGUMENTS.get(name)
        # To the broker declared false and not declared are two things; a queue made elsewhere may have the former.
        is_declared_false = name == "x-single-active-consumer" and queue.arguments[name] is False
        if field_name is not None and not is_declared_false:
            yield f"give {name} as {field_name}=…, not in arguments"
        elif types is not None and queue.type not in types:
            yield f"a {queue.type} queue takes no {name}: {_type_remedy(name, types)}"
