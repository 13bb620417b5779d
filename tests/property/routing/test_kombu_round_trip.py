"""What kombu can declare goes there and back without loss, and kombu declares what we do."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amqp_routing import (
    Binding,
    Exchange,
    ExchangeType,
    Queue,
    QueueType,
    Topology,
    declare,
    exchange_from_kombu,
    exchange_to_kombu,
    topology_from_kombu,
    topology_to_kombu,
)

_arguments = st.dictionaries(
    st.sampled_from(("x-one", "x-two")), st.sampled_from((1, True, "t", None)), max_size=2
)
_exchanges = st.builds(
    Exchange,
    st.sampled_from(("e0", "e1", "e2")),
    st.sampled_from((ExchangeType.DIRECT, ExchangeType.TOPIC, ExchangeType.FANOUT)),
    durable=st.booleans(),
    auto_delete=st.booleans(),
    alternate_exchange=st.sampled_from((None, "amq.fanout")),
    arguments=_arguments,
)
_seconds = st.one_of(st.none(), st.integers(1, 10**8).map(lambda milliseconds: milliseconds / 1000))


@st.composite
def _queues(draw: st.DrawFn, name: str) -> Queue:
    kind = draw(st.sampled_from(QueueType))
    fields: dict[str, Any] = {
        "type": kind,
        "arguments": draw(_arguments),
        "consumer_arguments": draw(_arguments),
    }
    if kind is not QueueType.STREAM:
        fields |= {
            "message_ttl": draw(_seconds),
            "expires": draw(_seconds),
            "max_length": draw(st.one_of(st.none(), st.integers(0, 9))),
        }
        fields["single_active_consumer"] = draw(st.booleans())
    if kind is QueueType.CLASSIC:
        fields |= {
            "durable": draw(st.booleans()),
            "exclusive": draw(st.booleans()),
            "auto_delete": draw(st.booleans()),
        }
        fields["max_priority"] = draw(st.one_of(st.none(), st.integers(0, 255)))
    return Queue(name, **fields)


@st.composite
def kombu_topologies(draw: st.DrawFn) -> Topology:
    """Topologies of queues and the exchanges they are bound to."""
    exchanges = draw(st.lists(_exchanges, max_size=3, unique_by=lambda exchange: exchange.name))
    queues = [draw(_queues(name)) for name in draw(st.lists(st.sampled_from(("a", "b", "c")), unique=True))]
    assume(not exchanges or queues)
    bindings = [
        Binding(each.name, draw(st.sampled_from(queues)).name, routing_key=draw(st.sampled_from(("", "k.#"))))
        for each in exchanges
    ]
    extra = draw(st.lists(st.sampled_from(queues), max_size=3)) if exchanges else []
    bindings += [
        Binding(draw(st.sampled_from(exchanges)).name, each.name, routing_key="x", arguments={"n": 1})
        for each in extra
    ]
    return Topology(exchanges=tuple(exchanges), queues=tuple(queues), bindings=tuple(bindings))


@settings(max_examples=200, deadline=None)
@given(topology=kombu_topologies())
def test_a_topology_comes_back_from_kombu_as_it_went(topology: Topology) -> None:
    back = topology_from_kombu(topology_to_kombu(topology))

    assert back == topology
    consumers = {queue.name: queue.consumer_arguments for queue in topology.queues}
    assert {queue.name: queue.consumer_arguments for queue in back.queues} == consumers


@settings(max_examples=100, deadline=None)
@given(exchange=_exchanges)
def test_an_exchange_comes_back_from_kombu_as_it_went(exchange: Exchange) -> None:
    assert exchange_from_kombu(exchange_to_kombu(exchange)) == exchange


class _Recorder:
    """A channel, for pika's names and for kombu's, that notes what would be declared."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def exchange_declare(self, exchange: str, exchange_type: str = "", **options: Any) -> None:
        kind = exchange_type or options.pop("type")
        self._note("exchange", exchange, kind, options)

    def queue_declare(self, queue: str, **options: Any) -> tuple[str, int, int]:
        self._note("queue", queue, "", options)
        return queue, 0, 0

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str | None = None, arguments: Any = None, **_: Any
    ) -> None:
        self._note("bind", queue, exchange, {"key": routing_key, "arguments": arguments or {}})

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Any = None
    ) -> None:
        self._note("exchange_bind", destination, source, {"key": routing_key, "arguments": arguments})

    def prepare_queue_arguments(self, arguments: Any, **options: Any) -> Any:
        from kombu.transport.base import to_rabbitmq_queue_arguments

        return to_rabbitmq_queue_arguments(arguments, **options)

    def _note(self, method: str, name: str, kind: str, options: dict[str, Any]) -> None:
        kept = {k: v for k, v in options.items() if k not in ("nowait", "passive", "internal")}
        arguments = kept.pop("arguments", None) or {}
        self.seen.add(repr((method, name, kind, sorted(kept.items()), sorted(arguments.items(), key=str))))


@settings(max_examples=100, deadline=None)
@given(topology=kombu_topologies())
def test_kombu_declares_what_we_declare(topology: Topology) -> None:
    ours, theirs = _Recorder(), _Recorder()

    declare(topology, ours)
    for queue in topology_to_kombu(topology):
        queue.declare(channel=theirs)

    assert theirs.seen == ours.seen


@settings(max_examples=100, deadline=None)
@given(ttl=st.floats(0, 10**6), expires=st.floats(0.001, 10**6), priority=st.integers(0, 255))
def test_kombus_own_fields_become_the_arguments_kombu_would_send(
    ttl: float, expires: float, priority: int
) -> None:
    kombu: Any = import_module("kombu")
    queue = kombu.Queue("q", message_ttl=ttl, expires=expires, max_priority=priority)
    sent = _Recorder()
    queue.queue_declare(channel=sent)

    ours = _Recorder()
    declare(topology_from_kombu([queue]), ours)

    # Ours always says the type; to the broker a queue without one is classic.
    assert {each.replace(", ('x-queue-type', 'classic')", "") for each in ours.seen} == sent.seen
