"""What to ask the broker about a topology, and what its answers mean. Scripts; no I/O of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amqp_routing import Binding, DestinationKind, Exchange, Queue, Topology
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import BrokerOperationError, QueueNotRunning, TopologyMismatch, UnknownQueue
from amqp_tasks.transport._contract import QueueStatus, TopologyMode
from amqp_tasks.transport._difference import difference
from amqp_tasks.transport._partial import PartialTopology
from amqp_tasks.transport.rabbitmq._errors import is_not_running
from amqp_tasks.transport.rabbitmq._operations import Ask, Script

__all__ = (
    "bind_script",
    "compare_script",
    "delete_script",
    "ensure_script",
    "exists_script",
    "presence_script",
    "purge_script",
    "queue_ask",
    "status_script",
    "unbind_script",
    "with_dead_letters",
)

NOT_FOUND, ACCESS_REFUSED, PRECONDITION_FAILED = 404, 403, 406
MAX_DIFFERENCES = 30
SLOW_ANSWER = 0.25
"""Seconds that a leader has for its answer, in `rabbit_quorum_queue:stat/1`."""
MAX_SLOW_ANSWERS = 3

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for (?:queue|exchange) '.*' in vhost '.*?':"
    r" received (?P<wanted>.*?) but current is (?P<found>.*)$",
    re.DOTALL,
)
_TYPED_VALUE = re.compile(r"^the value '(?P<value>.*)' of type '(?P<type>.*)'$", re.DOTALL)
_FLAGS = frozenset({"durable", "auto_delete", "exclusive", "internal"})


@dataclass(slots=True)
class _Found:
    missing_exchanges: list[Exchange] = field(default_factory=list[Exchange])
    missing_queues: list[Queue] = field(default_factory=list[Queue])
    differences: list[str] = field(default_factory=list[str])


def _queue_arguments(queue: Queue) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "durable": queue.durable,
        "exclusive": queue.exclusive,
        "auto_delete": queue.auto_delete,
        "arguments": queue.declared_arguments(),
    }


def _exchange_arguments(exchange: Exchange) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(exchange.arguments.items())
    if exchange.alternate_exchange is not None:
        arguments["alternate-exchange"] = exchange.alternate_exchange
    return {
        "exchange": exchange.name,
        "exchange_type": str(exchange.type),
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": arguments,
    }


def _is_predeclared(name: str) -> bool:
    return not name or name.startswith("amq.")


def _ask_queue(queue_name: str) -> Ask:
    return Ask("queue_declare", {"queue": queue_name, "passive": True}, f"looking for queue {queue_name!r}")


def _ask_exchange(name: str) -> Ask:
    return Ask("exchange_declare", {"exchange": name, "passive": True}, f"looking for exchange {name!r}")


def exists_script(exchange_name: str) -> Script[None]:
    """Raise `BrokerOperationError` (404) unless the exchange is there."""
    yield _ask_exchange(exchange_name)


def queue_ask(queue: Queue) -> Ask:
    """Declare a queue."""
    return Ask("queue_declare", _queue_arguments(queue), f"declaring queue {queue.name!r}")


def _exists(ask: Ask) -> Script[bool]:
    try:
        yield ask
    except BrokerOperationError as exc:
        if exc.reply_code != NOT_FOUND:
            raise
        return False
    return True


def _inspect(topology: Topology, *, is_new: bool = False) -> Script[_Found]:
    found = _Found(missing_queues=list(topology.queues) if is_new else [])
    for exchange in topology.exchanges:
        if _is_predeclared(exchange.name):
            continue
        if (yield from _exists(_ask_exchange(exchange.name))):
            found.differences += yield from _differences(
                "exchange", exchange.name, _exchange_arguments(exchange)
            )
        else:
            found.missing_exchanges.append(exchange)
    for queue in () if is_new else topology.queues:
        if (yield from _exists(_ask_queue(queue.name))):
            found.differences += yield from _differences("queue", queue.name, _queue_arguments(queue))
        else:
            found.missing_queues.append(queue)
    return found


def _differences(kind: str, name: str, arguments: dict[str, Any]) -> Script[list[str]]:
    """Repeat the declaration of something that exists; correct ours by each difference the broker names."""
    lines: list[str] = []
    ask = Ask(f"{kind}_declare", arguments, f"comparing {kind} {name!r}")
    for _ in range(MAX_DIFFERENCES):
        try:
            yield ask
        except BrokerOperationError as exc:
            if exc.reply_code == ACCESS_REFUSED:
                return []  # exists, and we may use but not configure it: nothing to compare with
            named = _read_difference(exc.reply_text) if exc.reply_code == PRECONDITION_FAILED else None
            if named is None:
                if lines:
                    return lines
                raise
            argument, wanted, current = named
            lines.append(difference(kind, name, argument, wanted=wanted, found=current))
            if not _correct(arguments, argument, current):
                return lines
        else:
            return lines
    return lines


def _read_difference(text: str) -> tuple[str, Any, Any] | None:
    match = _INEQUIVALENT.search(text)
    if match is None:
        return None
    return match["name"], _read_value(match["wanted"]), _read_value(match["found"])


def _read_value(text: str) -> Any:
    if text == "none":
        return None
    typed = _TYPED_VALUE.match(text)
    if typed is None:
        return text.strip("'")
    value, kind = typed["value"], typed["type"]
    if kind == "bool":
        return value == "true"
    if kind in {"byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint"}:
        return int(value)
    return value


def _correct(arguments: dict[str, Any], argument: str, current: Any) -> bool:
    """Make `arguments` agree with what the broker has; False when that changes nothing (no progress)."""
    if argument in _FLAGS:
        value: Any = current in {"true", True}
        changed = bool(arguments[argument] != value)
        arguments[argument] = value
        return changed
    if argument == "type":
        changed = bool(arguments["exchange_type"] != current)
        arguments["exchange_type"] = current
        return changed
    table: dict[str, Any] = arguments["arguments"]
    before = table.get(argument)
    if current is None:
        table.pop(argument, None)
    else:
        # Some texts give the value without its type: then it has the type of ours.
        table[argument] = int(current) if isinstance(before, int) and str(current).isdigit() else current
    return bool(before != table.get(argument))


def _declare_missing(found: _Found) -> Script[None]:
    for exchange in found.missing_exchanges:
        yield Ask("exchange_declare", _exchange_arguments(exchange), f"declaring exchange {exchange.name!r}")
    for queue in found.missing_queues:
        yield queue_ask(queue)


def _bind(binding: Binding, verb: str = "bind") -> Ask:
    to_exchange = binding.destination_kind is DestinationKind.EXCHANGE
    source, destination = ("source", "destination") if to_exchange else ("exchange", "queue")
    arguments = {
        destination: binding.destination,
        source: binding.source,
        "routing_key": binding.routing_key,
        "arguments": dict(binding.arguments),
    }
    kind = binding.destination_kind.value
    return Ask(f"{kind}_{verb}", arguments, f"{verb}ing {binding.destination!r} to {binding.source!r}")


def bind_script(bindings: Sequence[Binding]) -> Script[None]:
    """`Transport.bind`."""
    for binding in bindings:
        yield _bind(binding)


def unbind_script(bindings: Sequence[Binding]) -> Script[None]:
    """`Transport.unbind`."""
    for binding in bindings:
        try:
            yield _bind(binding, "unbind")
        except BrokerOperationError as exc:
            if exc.reply_code != NOT_FOUND:
                raise


def ensure_script(topology: Topology, mode: TopologyMode, *, is_new: bool = False) -> Script[None]:
    """`Transport.ensure_topology`, for the modes DECLARE and CHECK; `is_new` takes its queues for missing."""
    found = yield from _inspect(topology, is_new=is_new)
    if found.differences:
        raise TopologyMismatch(tuple(found.differences))
    missing = [exchange.name for exchange in found.missing_exchanges]
    missing += [queue.name for queue in found.missing_queues]
    if mode is TopologyMode.CHECK:
        if missing:
            raise UnknownQueue(missing[0], known=(), hint=_missing_hint(missing))
        return
    yield from _declare_missing(found)
    for binding in topology.bindings:
        if binding.source:
            yield _bind(binding)


def _missing_hint(missing: list[str]) -> str:
    return (
        f"not on the broker: {', '.join(missing)}; run `amqp-tasks topology apply`, or set topology='declare'"
    )


def compare_script(topology: Topology) -> Script[tuple[str, ...]]:
    """`Transport.compare_topology`."""
    found = yield from _inspect(topology)
    remedy = "is not on the broker: run `amqp-tasks topology apply`"
    missing = [f"exchange {exchange.name!r} {remedy}" for exchange in found.missing_exchanges]
    missing += [f"queue {queue.name!r} {remedy}" for queue in found.missing_queues]
    return (*missing, *found.differences)


def status_script(queue_name: str) -> Script[QueueStatus | None]:
    """`Transport.queue_status`."""
    try:
        answer = yield from _status_answer(queue_name)
    except BrokerOperationError as exc:
        _check_runs(queue_name, exc)
        if exc.reply_code != NOT_FOUND:
            raise
        return None
    return QueueStatus(name=queue_name, messages=answer.message_count, consumers=answer.consumer_count)


def _status_answer(queue_name: str) -> Script[Any]:
    """Nothing and nobody is also what RabbitMQ says of a quorum queue whose leader is too busy to tell: then it is asked again."""
    for _ in range(MAX_SLOW_ANSWERS):
        began = SYSTEM_CLOCK.monotonic()
        answer = yield _ask_queue(queue_name)
        if answer.message_count or answer.consumer_count or SYSTEM_CLOCK.monotonic() - began < SLOW_ANSWER:
            return answer
    return (yield _ask_queue(queue_name))


def _check_runs(queue_name: str, refusal: BrokerOperationError) -> None:
    if is_not_running(refusal):
        raise QueueNotRunning(
            queue_name, reply_code=refusal.reply_code, reply_text=refusal.reply_text
        ) from refusal


def purge_script(queue_name: str) -> Script[int]:
    """`Transport.purge_queue`."""
    try:
        answer = yield Ask("queue_purge", {"queue": queue_name}, f"purging queue {queue_name!r}")
    except BrokerOperationError as exc:
        _check_runs(queue_name, exc)
        if exc.reply_code == NOT_FOUND:
            raise UnknownQueue(queue_name, hint="the broker has no such queue") from exc
        raise
    return int(answer.message_count)


def delete_script(queue_name: str) -> Script[None]:
    """`Transport.delete_queue`."""
    yield Ask("queue_delete", {"queue": queue_name}, f"deleting queue {queue_name!r}")


def with_dead_letters(queues: Iterable[Queue], find: Callable[[str], Queue | None]) -> tuple[Queue, ...]:
    """The queues and those their dead letters go to by the default exchange; without them they are no whole topology."""
    found = dict.fromkeys(queues)
    names = [queue.dead_letter_routing_key for queue in found if queue.dead_letter_exchange == ""]
    dead = (find(name) for name in names if name is not None)
    return tuple(found | dict.fromkeys(queue for queue in dead if queue is not None))


def presence_script(
    names: Sequence[str], declare: Topology | None, present: list[str], absent: list[str]
) -> Script[None]:
    """Look for the queues, declaring those that `declare` holds; sorts their names into the two lists as it goes."""
    for name in names:
        is_there = yield from _is_running(name)
        if not is_there and declare is not None and declare.queue(name) is not None:
            is_there = yield from _declare_if_possible(_part_of(declare, name))
        (present if is_there else absent).append(name)


def _is_running(name: str) -> Script[bool]:
    """Whether the queue can be consumed: one that does not run is absent for now, as one that does not exist."""
    try:
        return (yield from status_script(name)) is not None
    except QueueNotRunning:
        return False


def may_consume_script(name: str) -> Script[None]:
    """Whether this user may consume the queue: what is missing shows in another script.

    No method asks just that. This consume can never work, as its priority is no number, but the right to read is looked
    at before: so it costs no message a delivery, and no consumer its channel.

    Raises:
        BrokerOperationError: no (403).
    """
    arguments = {"x-priority": "none"}
    asked = {"queue": name, "on_message_callback": _unused, "arguments": arguments}
    try:
        yield Ask("basic_consume", asked, f"consuming queue {name!r}")
    except BrokerOperationError as exc:
        if exc.reply_code not in {NOT_FOUND, PRECONDITION_FAILED}:
            raise


def _unused(*_arguments: Any) -> None:
    """pika wants a callback."""


def _declare_if_possible(part: Topology) -> Script[bool]:
    try:
        yield from ensure_script(part, TopologyMode.DECLARE)
    except BrokerOperationError as exc:
        if exc.reply_code != NOT_FOUND:
            raise
        return False  # known to the broker but not to be had: its node is down, or its process has crashed
    return True


def _part_of(declare: Topology, name: str) -> Topology:
    """The queue with its dead-letter queue, the bindings that lead to it and the exchanges those need."""
    bindings = tuple(binding for binding in declare.bindings if binding.destination == name)
    sources = {binding.source for binding in bindings}
    queue = declare.queue(name)
    assert queue is not None
    exchanges = tuple(exchange for exchange in declare.exchanges if exchange.name in sources)
    queues = with_dead_letters((queue,), declare.queue)
    # Not a whole one: its dead letters may go by an exchange that is none of its own.
    return PartialTopology(exchanges=exchanges, queues=queues, bindings=bindings)
