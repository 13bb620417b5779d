"""kombu objects that say more than a declaration can."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from amqp_routing import (
    Binding,
    ConversionError,
    DeclarationError,
    DestinationKind,
    Exchange,
    Queue,
    QueueType,
    Topology,
    queue_from_kombu,
    queue_to_kombu,
    topology_from_kombu,
    topology_to_kombu,
)

# kombu has no types.
kombu: Any = import_module("kombu")


def test_arguments_become_fields() -> None:
    given = kombu.Queue(
        "mail",
        max_priority=5,
        message_ttl=1.5,
        queue_arguments={"x-dead-letter-exchange": "dlx", "x-custom": 1},
    )

    expected = Queue(
        "mail",
        type=QueueType.CLASSIC,
        max_priority=5,
        message_ttl=1.5,
        dead_letter_exchange="dlx",
        arguments={"x-custom": 1},
    )
    assert queue_from_kombu(given) == expected


def test_the_type_is_the_arguments_or_the_default() -> None:
    typed = kombu.Queue("q", queue_arguments={"x-queue-type": "quorum"})

    assert queue_from_kombu(typed).type is QueueType.QUORUM
    assert queue_from_kombu(kombu.Queue("q")).type is QueueType.CLASSIC
    assert queue_from_kombu(kombu.Queue("q"), default_type=QueueType.QUORUM).type is QueueType.QUORUM


def test_declared_false_stays_declared() -> None:
    queue = queue_from_kombu(kombu.Queue("q", queue_arguments={"x-single-active-consumer": False}))

    assert queue.declared_arguments()["x-single-active-consumer"] is False


def test_one_binding_and_several_come_along() -> None:
    events = kombu.Exchange("events", type="topic")
    one = kombu.Queue("one", events, routing_key="a.#")
    two = kombu.Queue("two", [kombu.binding(events, routing_key=key) for key in ("b", "c")])
    plain = kombu.Queue("plain", routing_key="plain")

    topology = topology_from_kombu([one, two, plain])

    assert {(b.destination, b.routing_key) for b in topology.bindings} == {
        ("one", "a.#"),
        ("two", "b"),
        ("two", "c"),
    }
    assert [exchange.name for exchange in topology.exchanges] == ["events"]


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (kombu.Queue("q", no_ack=True), "no_ack"),
        (kombu.Queue("q", no_declare=True), "not to be declared"),
        (kombu.Queue("q", on_declared=print), "on_declared"),
        (kombu.Queue("q", kombu.Exchange("e", passive=True)), "not to be declared"),
        (kombu.Queue("q", kombu.Exchange("e", delivery_mode="transient")), "transient messages"),
    ],
    ids=["no_ack", "no_declare", "on_declared", "passive", "transient"],
)
def test_what_has_no_place_in_a_declaration_is_refused(queue: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        topology_from_kombu([queue])


def test_what_the_broker_would_refuse_is_refused() -> None:
    with pytest.raises(DeclarationError, match="max_priority"):
        queue_from_kombu(kombu.Queue("q", max_priority=5, queue_arguments={"x-queue-type": "quorum"}))
    with pytest.raises(DeclarationError, match="type is 'x-delayed-message'"):
        topology_from_kombu([kombu.Queue("q", kombu.Exchange("e", type="x-delayed-message"))])


def test_what_kombu_cannot_declare_is_refused() -> None:
    bound = Topology(
        exchanges=(Exchange("in"), Exchange("out")),
        bindings=(Binding("in", "out", destination_kind=DestinationKind.EXCHANGE),),
    )
    inner = Topology(
        exchanges=(Exchange("inner", internal=True),),
        queues=(Queue("q"), Queue("d", dead_letter_exchange="inner")),
        bindings=(Binding("inner", "q"),),
    )

    with pytest.raises(ConversionError, match="cannot bind exchanges to each other"):
        topology_to_kombu(bound)
    with pytest.raises(ConversionError, match="exchange 'out': no queue is bound to it"):
        topology_to_kombu(bound)
    with pytest.raises(ConversionError, match="internal, which kombu cannot declare"):
        topology_to_kombu(inner)
    with pytest.raises(ConversionError, match="no queue 'gone'"):
        queue_to_kombu(inner, "gone")
