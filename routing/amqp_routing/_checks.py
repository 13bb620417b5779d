"""What is wrong with a set of exchanges, queues and bindings.

Dead-lettering in a circle: RabbitMQ drops a message that comes back to a queue when no consumer rejected it on the
way. A circle is therefore a fault when every queue in it can dead-letter by itself: by a message TTL, by a maximum
length that drops, or by a delivery limit, which a quorum queue always has (RabbitMQ 4.0 sets one if we do not), unless
it declares one that is in effect none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqp_routing._binding import Binding, DestinationKind
from amqp_routing._exchange import DEFAULT_EXCHANGE, ExchangeType
from amqp_routing._match import X_MATCH_KINDS
from amqp_routing._queue import Queue
from amqp_routing._queue_arguments import Overflow, QueueType
from amqp_routing._walk import Parts, queues_of, walk

__all__ = ("topology_faults",)


def topology_faults(parts: Parts) -> Iterator[str]:
    """Every fault with its remedy, a line each; names are taken to be unique."""
    for bindings in parts.bindings_of.values():
        for binding in bindings:
            yield from _binding_faults(parts, binding)
    for exchange in parts.exchanges.values():
        alternate = exchange.alternate_exchange
        if alternate is not None and alternate not in parts.exchanges:
            yield f"exchange {exchange.name!r}: {_unknown('alternate exchange', alternate, parts.exchanges)}"
    yield from _unreachable(parts)
    yield from _lost_dead_letters(parts)
    yield from _dead_letter_circles(parts)


def _unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    listed = ", ".join(repr(each) for each in known if each and not each.startswith("amq.")) or "none"
    return f"unknown {what} {name!r} (known: {listed}); add it or correct the name"


def _binding_faults(parts: Parts, binding: Binding) -> Iterator[str]:
    if binding.source not in parts.exchanges:
        yield f"{binding}: {_unknown('exchange', binding.source, parts.exchanges)}"
    else:
        yield from _condition_faults(parts, binding)
    known = parts.queues if binding.destination_kind is DestinationKind.QUEUE else parts.exchanges
    if binding.destination not in known:
        yield f"{binding}: {_unknown(binding.destination_kind.value, binding.destination, known)}"


def _condition_faults(parts: Parts, binding: Binding) -> Iterator[str]:
    match parts.exchanges[binding.source].type:
        case ExchangeType.HEADERS:
            kind = binding.arguments.get("x-match", "all")
            if kind not in X_MATCH_KINDS:
                yield f"{binding}: x-match is {kind!r}, expected one of {', '.join(X_MATCH_KINDS)}"
            elif not _can_match(parts, binding):
                yield f"{binding}: x-match {kind!r} without a header to compare never matches; add one or use 'all'"
        case ExchangeType.CONSISTENT_HASH:
            if not (
                binding.routing_key.isascii() and binding.routing_key.isdigit() and int(binding.routing_key)
            ):
                yield f"{binding}: the key of a consistent-hash binding is its weight, a number of at least 1"
        case ExchangeType.DIRECT | ExchangeType.TOPIC | ExchangeType.FANOUT:
            pass


def _can_match(parts: Parts, binding: Binding) -> bool:
    """Whether any message could pass: only `any` over nothing can be told to be empty."""
    source = parts.exchanges.get(binding.source)
    if source is None or source.type is not ExchangeType.HEADERS:
        return True
    kind = binding.arguments.get("x-match", "all")
    if kind == "any":
        return any(not key.startswith("x-") for key in binding.arguments)
    return kind != "any-with-x" or any(key != "x-match" for key in binding.arguments)


def _unreachable(parts: Parts) -> Iterator[str]:
    """Queues whose every binding comes from exchanges that nothing feeds.

    A queue without bindings is reached through the default exchange, so it is none.
    """
    fed = _fed_exchanges(parts)
    sources: dict[str, list[str]] = {}
    for bindings in parts.bindings_of.values():
        for binding in bindings:
            if binding.destination_kind is DestinationKind.QUEUE:
                sources.setdefault(binding.destination, []).append(binding.source)
    for queue_name, names in sources.items():
        if queue_name in parts.queues and all(name in parts.exchanges and name not in fed for name in names):
            listed = ", ".join(repr(name) for name in dict.fromkeys(names))
            yield (
                f"queue {queue_name!r} is unreachable: it is bound only to {listed}, internal and fed by nothing; "
                "bind that to another exchange or drop internal=True"
            )


def _fed_exchanges(parts: Parts) -> set[str]:
    fed = {name for name, exchange in parts.exchanges.items() if not exchange.internal}
    fed |= {queue.dead_letter_exchange for queue in parts.queues.values() if queue.dead_letter_exchange}
    # The broker itself publishes here when tracing is on.
    fed.add("amq.rabbitmq.trace")
    waiting = list(fed)
    while waiting:
        name = waiting.pop()
        exchange = parts.exchanges.get(name)
        onward = [b.destination for b in parts.bindings_of.get(name, ()) if _feeds_exchange(parts, b)]
        if exchange is not None and exchange.alternate_exchange is not None:
            onward.append(exchange.alternate_exchange)
        waiting += [each for each in onward if each not in fed]
        fed.update(onward)
    return fed


def _feeds_exchange(parts: Parts, binding: Binding) -> bool:
    return binding.destination_kind is DestinationKind.EXCHANGE and _can_match(parts, binding)


def _lost_dead_letters(parts: Parts) -> Iterator[str]:
    for queue in parts.queues.values():
        name, key = queue.dead_letter_exchange, queue.dead_letter_routing_key
        if name is None:
            continue
        if name not in parts.exchanges:
            yield f"queue {queue.name!r}: {_unknown('dead-letter exchange', name, parts.exchanges)}"
        elif (
            key is not None
            and not _decided_by_headers(parts, name)
            and not _dead_letter_targets(parts, queue)
        ):
            where = f"exchange {name!r}" if name else "the default exchange"
            yield (
                f"queue {queue.name!r}: its dead letters are dropped, as {where} takes key {key!r} to no queue; "
                "add the queue or its binding"
            )


def _decided_by_headers(parts: Parts, start: str) -> bool:
    """Whether a headers exchange may stand on the way, so that the message's own headers decide."""
    seen, waiting = {start}, [start]
    while waiting:
        exchange = parts.exchanges.get(waiting.pop())
        if exchange is None:
            continue
        if exchange.type is ExchangeType.HEADERS:
            return True
        onward = {
            b.destination for b in parts.bindings_of.get(exchange.name, ()) if _feeds_exchange(parts, b)
        }
        if exchange.alternate_exchange is not None:
            onward.add(exchange.alternate_exchange)
        waiting += onward - seen
        seen |= onward
    return False


def _dead_letter_targets(parts: Parts, queue: Queue) -> tuple[str, ...]:
    """The queues that get this queue's dead letters, for the keys its messages are known to carry."""
    exchange = parts.exchanges.get(queue.dead_letter_exchange or DEFAULT_EXCHANGE)
    if queue.dead_letter_exchange is None or exchange is None:
        return ()
    given = queue.dead_letter_routing_key
    keys = _usual_keys(parts, queue) if given is None else (given,)
    return tuple(dict.fromkeys(name for key in keys for name in queues_of(walk(parts, exchange, (key,), {}))))


def _usual_keys(parts: Parts, queue: Queue) -> tuple[str, ...]:
    """Its name (the default exchange) and the keys it is bound with that are not patterns."""
    keys = [queue.name]
    for source, bindings in parts.bindings_of.items():
        exchange = parts.exchanges.get(source)
        if exchange is None or exchange.type not in (ExchangeType.DIRECT, ExchangeType.TOPIC):
            continue
        is_topic = exchange.type is ExchangeType.TOPIC
        keys += [
            b.routing_key
            for b in bindings
            if b.destination == queue.name
            and b.destination_kind is DestinationKind.QUEUE
            and not (is_topic and {"*", "#"} & set(b.routing_key.split(".")))
        ]
    return tuple(dict.fromkeys(keys))


def _dead_letter_circles(parts: Parts) -> Iterator[str]:
    targets = {
        name: _dead_letter_targets(parts, queue)
        for name, queue in parts.queues.items()
        if _dead_letters_by_itself(queue)
    }
    reported: set[frozenset[str]] = set()
    for name in targets:
        circle = _circle_from(name, targets)
        if circle and frozenset(circle) not in reported:
            reported.add(frozenset(circle))
            way = " -> ".join(repr(each) for each in (*circle, circle[0]))
            yield (
                f"dead letters go in a circle, {way}, and RabbitMQ drops a message that comes round without having "
                "been rejected by a consumer: dead-letter one of them to a queue outside the circle"
            )


_NO_DELIVERY_LIMIT = 2**31 - 1
"""What stands for none: -1 is no way to say that, see `Queue`."""


def _dead_letters_by_itself(queue: Queue) -> bool:
    if queue.dead_letter_exchange is None:
        return False
    drops = queue.overflow is not Overflow.REJECT_PUBLISH
    has_length = queue.max_length is not None or queue.max_length_bytes is not None
    has_limit = queue.type is QueueType.QUORUM and queue.delivery_limit != _NO_DELIVERY_LIMIT
    return has_limit or queue.message_ttl is not None or (has_length and drops)


def _circle_from(start: str, targets: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The shortest way from `start` back to itself; empty when there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for name in targets.get(way[-1], ()):
            if name == start:
                return way
            if name in targets and name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()
