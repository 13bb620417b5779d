"""Whether a binding takes a message, as RabbitMQ decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amqp_routing._binding import Binding
from amqp_routing._exchange import ExchangeType
from amqp_routing._table import Table, TableValue

__all__ = ("X_MATCH_KINDS", "binding_matches", "headers_match", "topic_matches")

X_MATCH_KINDS = ("all", "any", "all-with-x", "any-with-x")


def binding_matches(
    exchange_type: ExchangeType,
    binding: Binding,
    routing_keys: Sequence[str],
    headers: Mapping[str, TableValue],
) -> bool:
    """Whether an exchange of that type passes the message on through `binding`.

    Of a consistent-hash exchange every binding is a candidate; the broker takes one of them.
    """
    match exchange_type:
        case ExchangeType.DIRECT:
            return binding.routing_key in routing_keys
        case ExchangeType.TOPIC:
            return any(topic_matches(binding.routing_key, key) for key in routing_keys)
        case ExchangeType.HEADERS:
            return headers_match(binding.arguments, headers)
        case ExchangeType.FANOUT | ExchangeType.CONSISTENT_HASH:
            return True


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic binding's pattern takes a routing key.

    Words are separated by dots and may be empty: `a..b` has three words, `.` two, the empty key none. `*` is exactly
    one word, `#` any number of words; both only as a whole word.

    See: https://www.rabbitmq.com/tutorials/tutorial-five-python.
    """
    words = _words(routing_key)
    # Which numbers of leading words the pattern read so far can take.
    taken = {0}
    for part in _words(pattern):
        if part == "#":
            taken = set(range(min(taken), len(words) + 1))
        else:
            taken = {count + 1 for count in taken if count < len(words) and part in ("*", words[count])}
        if not taken:
            return False
    return len(words) in taken


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


def headers_match(arguments: Mapping[str, TableValue], headers: Mapping[str, TableValue]) -> bool:
    """Whether a headers binding takes a message with these headers.

    `x-match` is `all` (the default), `any`, `all-with-x` or `any-with-x`; the first two leave out arguments that begin
    with `x-`. A void argument asks only that the header is there. Values of different kinds differ: `1`, `True`,
    `1.0` and `"1"` are four values. (RabbitMQ 4 takes bytes for text of the same content, RabbitMQ 3 does not; here they
    differ.)

    See: https://www.rabbitmq.com/docs/exchanges#headers.
    """
    kind = arguments.get("x-match", "all")
    checks = (
        key in headers and (wanted is None or Table({"": wanted}) == Table({"": headers[key]}))
        for key, wanted in arguments.items()
        if _is_compared(key, kind)
    )
    return any(checks) if kind in ("any", "any-with-x") else all(checks)


def _is_compared(key: str, kind: TableValue) -> bool:
    if kind in ("all-with-x", "any-with-x"):
        return key != "x-match"
    return not key.startswith("x-")
