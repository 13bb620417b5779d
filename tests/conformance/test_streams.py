"""Streams, by the contract in `amqp_tasks.transport`."""

from __future__ import annotations

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.transport import ConsumerState, Settlement, TopologyMode, Transport
from support.collector import Collector
from support.conformance import Consume, Door, Message

STREAM = Queue("log", type=QueueType.STREAM, arguments={"x-max-age": "3600s"})
TOPOLOGY = Topology(queues=(STREAM,))
FIRST = {"log": {"x-stream-offset": "first"}}


@pytest.fixture
def log(transport: Transport) -> str:
    """A stream, declared."""
    transport.ensure_topology(TOPOLOGY, mode=TopologyMode.DECLARE)
    return STREAM.name


def write(transport: Transport, message: Message, *bodies: bytes) -> None:
    assert set(transport.publish_many(message(body, "log") for body in bodies)) == {None}


def offsets(collector: Collector) -> list[int]:
    return [each.properties.headers["x-stream-offset"] for each in collector.deliveries]


def test_each_reader_reads_all_from_the_first_and_takes_nothing_away(
    transport: Transport, log: str, message: Message, consume: Consume
) -> None:
    write(transport, message, b"a", b"b")

    collectors = [consume(log, arguments=FIRST)[1] for _ in range(2)]
    for collector in collectors:
        collector.wait_deliveries(2)
    write(transport, message, b"c")

    for collector in collectors:
        collector.wait_deliveries(3)
        assert collector.bodies == [b"a", b"b", b"c"]
        assert offsets(collector) == [0, 1, 2]
        assert {each.redelivered for each in collector.deliveries} == {False}


def test_acks_make_room_for_more(transport: Transport, log: str, message: Message, consume: Consume) -> None:
    bodies = [b"%d" % number for number in range(50)]
    write(transport, message, *bodies)

    consumer, collector = consume(log, arguments=FIRST, prefetch=5)

    done = 0
    while done < len(bodies):
        for delivery in collector.wait_deliveries(done + 1)[done:]:
            consumer.settle(delivery, Settlement.ACK)
            done += 1
    assert collector.bodies == bodies


def test_after_a_lost_connection_it_is_read_on_after_the_last(
    transport: Transport, door: Door, log: str, message: Message, consume: Consume
) -> None:
    write(transport, message, b"a", b"b")
    _, collector = consume(log, arguments=FIRST)
    collector.wait_deliveries(2)

    door.drop_connections()
    collector.wait_event(ConsumerState.LOST)
    write(transport, message, b"c")

    collector.wait_deliveries(3)
    collector.wait_event(ConsumerState.CONSUMING, count=2)
    write(transport, message, b"d")
    collector.wait_deliveries(4)
    assert collector.bodies == [b"a", b"b", b"c", b"d"]


def test_another_prefetch_reads_on_as_well(
    transport: Transport, log: str, message: Message, consume: Consume
) -> None:
    consumer, collector = consume(log, arguments=FIRST)
    write(transport, message, b"a")
    collector.wait_deliveries(1)

    consumer.set_prefetch(20)
    consumer.pause()
    write(transport, message, b"b")
    consumer.resume()
    write(transport, message, b"c")

    collector.wait_deliveries(3)
    assert collector.bodies == [b"a", b"b", b"c"]


def test_a_stream_that_was_deleted_is_declared_again_and_read_from_its_first(
    transport: Transport, log: str, message: Message, consume: Consume
) -> None:
    write(transport, message, b"a", b"b", b"c")
    _, collector = consume(log, arguments=FIRST, declare=TOPOLOGY)
    collector.wait_deliveries(3)

    transport.delete_queue(log)
    collector.wait_event(ConsumerState.CANCELLED)
    collector.wait_event(ConsumerState.CONSUMING, count=2)
    write(transport, message, b"new")

    collector.wait_deliveries(4)
    assert collector.bodies == [b"a", b"b", b"c", b"new"]
    assert offsets(collector)[-1] == 0
