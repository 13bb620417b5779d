"""Messages with a delay, by the contract in `amqp_tasks.transport`."""

from __future__ import annotations

import time

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, Topology
from amqp_tasks.errors import UnroutableError
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import TopologyMode, Transport
from amqp_tasks.transport._delay import STRAY_NAME
from support import eventually
from support.conformance import Consume, Message

DECLARE = TopologyMode.DECLARE
LONG = 3600.0
TOLERANCE = 0.05
"""Seconds by which nothing may be early."""


def delayed(message: OutgoingMessage, seconds: float) -> OutgoingMessage:
    message.delay = seconds
    return message


def test_a_delayed_message_comes_when_it_is_due_and_in_order(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    _, collector = consume(queue, prefetch=100)
    bodies = [b"%d" % number for number in range(30)]
    transport.publish(delayed(message(b"much later"), LONG))
    began = time.monotonic()

    outcomes = transport.publish_many(
        delayed(message(body, expiration="1", headers={"n": 1}), 1.0) for body in bodies
    )
    transport.publish(message(b"at once"))
    transport.publish(delayed(message(b"past"), -5.0))

    assert set(outcomes) == {None}
    collector.wait_deliveries(len(bodies) + 2)
    # On a slow machine the first may be due before the last two are even sent.
    assert [body for body in collector.bodies if body in bodies] == bodies
    assert {b"at once", b"past"} < set(collector.bodies)
    assert time.monotonic() - began >= 1.0 - TOLERANCE
    first = collector.deliveries[collector.bodies.index(bodies[0])]
    assert (first.exchange, first.routing_key, first.redelivered) == ("", "q", False)
    assert (first.properties.headers["n"], first.properties.expiration) == (1, None)


def test_destinations_are_told_apart_and_get_their_own_keys(
    transport: Transport, message: Message, consume: Consume
) -> None:
    names = ["a.b", "b", "a%2Eb", "#", "." * 90]
    topics = Exchange("topics", ExchangeType.TOPIC)
    bound = Binding("topics", "b", routing_key="news.*")
    topology = Topology(exchanges=(topics,), queues=tuple(Queue(name) for name in names), bindings=(bound,))
    transport.ensure_topology(topology, mode=DECLARE)
    _, collector = consume(*names, prefetch=100)

    for name in names:
        transport.publish(delayed(message(name.encode(), name), 1.0))
    transport.publish(delayed(message(b"topic", "news.today", exchange="topics"), 1.0))

    came = collector.wait_deliveries(len(names) + 1)
    found = {(each.body, each.queue_name, each.exchange, each.routing_key) for each in came}
    expected = {(name.encode(), name, "", name) for name in names}
    assert found == expected | {(b"topic", "b", "topics", "news.today")}


def test_a_delayed_message_to_nowhere_is_refused_at_once(transport: Transport, message: Message) -> None:
    with pytest.raises(UnroutableError) as caught:
        transport.publish(delayed(message(b"x", "nowhere"), LONG))

    assert (caught.value.exchange, caught.value.routing_key) == ("", "nowhere")
    with pytest.raises(UnroutableError):
        transport.publish(delayed(message(b"x", "k", exchange="nowhere"), LONG))


def test_a_message_whose_destination_is_gone_when_it_is_due_is_kept(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(delayed(message(b"x", message_id="m"), 1.0))
    transport.delete_queue(queue)

    eventually(lambda: transport.queue_status(STRAY_NAME) is not None)
    _, collector = consume(STRAY_NAME)
    (stray,) = collector.wait_deliveries(1)
    assert (stray.body, stray.properties.message_id) == (b"x", "m")
