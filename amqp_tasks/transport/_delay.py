"""The timer wheel: where RabbitMQ keeps a delayed message, and how it gets from there to its destination. No I/O.

See `docs/explanation/delay.md`. A delay in whole seconds is written as hexadecimal digits. Level n has a topic exchange and,
for each digit d, a queue whose messages expire after d·16ⁿ seconds into the exchange of the level below; digit 0 passes straight
down. Below level 0 stands the exchange of what is due, from which the last word of the routing key finds the destination. A
publisher knows the first queue, and enters by the fanout exchange of that queue's name: no key is compared there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from amqp_routing import (
    Binding,
    DeadLetterStrategy,
    DestinationKind,
    Exchange,
    ExchangeType,
    Overflow,
    Queue,
    Topology,
)
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._partial import PartialTopology

__all__ = (
    "DUE_EXCHANGE",
    "MAX_SECONDS",
    "STRAY_NAME",
    "WHEEL_PREFIX",
    "Stop",
    "WheelEntry",
    "came_through_wheel",
    "due_binding",
    "enter_wheel",
    "is_of_wheel",
    "wheel_entry",
    "without_expiration",
)

RADIX = 16
LEVELS = 6
MAX_SECONDS = 5 * RADIX ** (LEVELS - 1) - 1
"""The longest way through the wheel, two months: a queue's TTL is at most 2³²-1 milliseconds."""
WHEEL_PREFIX = "amqp_tasks.delay."
DUE_EXCHANGE = f"{WHEEL_PREFIX}due"
"""Where messages arrive whose time has come; each destination is bound to it."""
STRAY_NAME = f"{WHEEL_PREFIX}stray"
"""Exchange and queue of those that were due when their destination was gone."""
_EXIT_PREFIX = f"{WHEEL_PREFIX}exit."
_MAX_WORD = 255 - 2 * LEVELS
_LEFT_OVER = 7200
"""Seconds at least that a way longer than the wheel leaves over, so that no difference of clocks explains them."""
_MAX_NORMAL_PRIORITY = 4
"""Quorum queues put messages of a higher priority before the others from RabbitMQ 4.0 on."""
_HIGH_LANE = "high."
_CACHED = 4096
_FOOT = Topology(
    exchanges=(
        Exchange(STRAY_NAME, ExchangeType.FANOUT),
        Exchange(DUE_EXCHANGE, ExchangeType.TOPIC, alternate_exchange=STRAY_NAME),
    ),
    queues=(Queue(STRAY_NAME),),
    bindings=(Binding(STRAY_NAME, STRAY_NAME),),
)
"""What each way through the wheel ends in."""


class Stop(NamedTuple):
    """One wheel queue. `lane` keeps messages of high priority apart: ahead of others that are due they would hold those up."""

    lane: str
    level: int
    digit: int


@dataclass(frozen=True, slots=True)
class WheelEntry:
    """One way through the wheel: so many seconds, then to one destination. Make it with `wheel_entry`.

    Attributes:
        exchange: the one to publish to, that of the first stop.
        routing_key: the key to publish with: six digits and the destination, a word each.
        stops: the queues that it waits in, in this order; at least one.
        due_queue: the queue that what is due goes to: the destination, or the exit to a destination behind an exchange.
        target: exchange and routing key of the destination.
    """

    exchange: str
    routing_key: str
    stops: tuple[Stop, ...]
    due_queue: str
    target: tuple[str, str]

    def topology(self, known: Collection[Stop] = ()) -> Topology:
        """What it needs of the wheel, less what was declared for the stops of others."""
        lane, highest, _ = self.stops[0]
        levels = range(max((stop.level + 1 for stop in known if stop.lane == lane), default=0), highest + 1)
        exchanges = tuple(Exchange(_exchange_name(lane, level), ExchangeType.TOPIC) for level in levels)
        stops = [stop for stop in self.stops if stop not in known]
        entrances = [Exchange(_queue_name(stop), ExchangeType.FANOUT) for stop in stops]
        # Not a whole one where something is known: its exchanges are not told again.
        base, kind = (PartialTopology(), PartialTopology) if known else (_FOOT, Topology)
        return kind(
            exchanges=(*base.exchanges, *exchanges, *entrances),
            queues=(*base.queues, *map(_wheel_queue, stops)),
            bindings=(
                *base.bindings,
                *(_passing(lane, level) for level in levels),
                *map(_way_down, stops),
                *map(_entrance, stops),
            ),
        )

    @property
    def exit_queue(self) -> Queue | None:
        """What stands between the wheel and a destination behind an exchange: it gives messages their own key back."""
        exchange, routing_key = self.target
        if not exchange:
            return None
        return _forwarding(self.due_queue, 0.0, exchange, routing_key)

    @property
    def due_pattern(self) -> str:
        """The key of the binding from the exchange of what is due to `due_queue`."""
        return f"{'*.' * LEVELS}{self.routing_key[2 * LEVELS :]}"


def due_binding(queue_name: str) -> Binding:
    """By which what was delayed for a queue reaches it when it is due."""
    entry = wheel_entry(1, "", queue_name)
    return Binding(DUE_EXCHANGE, queue_name, routing_key=entry.due_pattern)


@lru_cache(_CACHED)
def wheel_entry(seconds: int, exchange: str, routing_key: str, *, is_high: bool = False) -> WheelEntry:
    """The way of a message for `exchange` and `routing_key`.

    Args:
        seconds: 1 to `MAX_SECONDS`.
        exchange: "" for the queue that `routing_key` names.
        routing_key: of the destination.
        is_high: whether the message is of high priority.
    """
    lane = _HIGH_LANE if is_high else ""
    digits = f"{seconds:0{LEVELS}x}"
    word = _queue_word(routing_key) if not exchange else _hashed(exchange, routing_key)
    stops = tuple(
        Stop(lane, LEVELS - 1 - at, int(digit, RADIX)) for at, digit in enumerate(digits) if digit != "0"
    )
    return WheelEntry(
        exchange=_queue_name(stops[0]),
        routing_key=".".join((*digits, word)),
        stops=stops,
        due_queue=routing_key if not exchange else _EXIT_PREFIX + word.lstrip("%"),
        target=(exchange, routing_key),
    )


def enter_wheel(message: OutgoingMessage) -> tuple[OutgoingMessage, WheelEntry] | None:
    """The message as it is published into the wheel; None when there is no whole second to wait.

    The part below one second is left to the worker, which knows it by the header `eta`; a message without that header
    waits a second longer instead. A delay beyond `MAX_SECONDS` ends before it, and the worker sends the message round again.
    """
    seconds = _whole_seconds(message)
    if seconds < 1 or not (message.exchange or message.routing_key):
        return None
    if seconds > MAX_SECONDS:
        seconds = min(MAX_SECONDS, seconds - _LEFT_OVER)
    is_high = (message.properties.priority or 0) > _MAX_NORMAL_PRIORITY
    entry = wheel_entry(seconds, message.exchange, message.routing_key, is_high=is_high)
    # Not `replace`, which takes a third of the time that all the rest of this does.
    sent = OutgoingMessage(
        exchange=entry.exchange,
        routing_key=entry.routing_key,
        body=message.body,
        properties=without_expiration(message.properties),
        mandatory=message.mandatory,
        is_relayed=message.is_relayed,
        delay=message.delay,
        is_task=message.is_task,
    )
    return sent, entry


def _whole_seconds(message: OutgoingMessage) -> int:
    delay = message.delay or 0.0
    return int(delay) if message.properties.headers.get("eta") else math.ceil(delay)


def without_expiration(properties: Properties) -> Properties:
    """Properties for a message that waits: its expiration would end the wait early, not the message."""
    return properties if properties.expiration is None else replace(properties, expiration=None)


def came_through_wheel(headers: Mapping[str, Any]) -> bool:
    """Whether a received message has waited in the wheel."""
    return is_of_wheel(str(headers.get("x-first-death-queue", "")))


def is_of_wheel(name: str) -> bool:
    """Whether an exchange or a queue of this name belongs to the wheel."""
    return name.startswith(WHEEL_PREFIX)


def _queue_word(name: str) -> str:
    """A queue's name as one word of a topic key; different names make different words."""
    word = name.replace("%", "%25").replace(".", "%2E").replace("*", "%2A").replace("#", "%23")
    return word if len(word.encode("utf-8", "surrogatepass")) <= _MAX_WORD else _hashed("", name)


def _hashed(exchange: str, routing_key: str) -> str:
    # An escaped name never holds two of these signs in a row.
    text = f"{len(exchange)}:{exchange}{routing_key}"
    return f"%%{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _exchange_name(lane: str, level: int) -> str:
    return f"{WHEEL_PREFIX}{lane}{level}" if level >= 0 else DUE_EXCHANGE


def _queue_name(stop: Stop) -> str:
    return f"{WHEEL_PREFIX}{stop.lane}{stop.level}.{stop.digit:x}"


def _pattern(level: int, digit: int) -> str:
    return f"{'*.' * (LEVELS - 1 - level)}{digit:x}.#"


def _passing(lane: str, level: int) -> Binding:
    return Binding(
        _exchange_name(lane, level),
        _exchange_name(lane, level - 1),
        destination_kind=DestinationKind.EXCHANGE,
        routing_key=_pattern(level, 0),
    )


def _way_down(stop: Stop) -> Binding:
    """For what comes from a level above."""
    pattern = _pattern(stop.level, stop.digit)
    return Binding(_exchange_name(stop.lane, stop.level), _queue_name(stop), routing_key=pattern)


def _entrance(stop: Stop) -> Binding:
    """For what is published: routing seven words by a topic takes the broker longer than all else that it does for a message."""
    return Binding(_queue_name(stop), _queue_name(stop))


def _wheel_queue(stop: Stop) -> Queue:
    seconds = float(stop.digit * RADIX**stop.level)
    return _forwarding(_queue_name(stop), seconds, _exchange_name(stop.lane, stop.level - 1), None)


def _forwarding(name: str, seconds: float, exchange: str, routing_key: str | None) -> Queue:
    # Never `expires`: a queue that goes takes its messages along.
    return Queue(
        name,
        message_ttl=seconds,
        dead_letter_exchange=exchange,
        dead_letter_routing_key=routing_key,
        dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
        overflow=Overflow.REJECT_PUBLISH,
    )
