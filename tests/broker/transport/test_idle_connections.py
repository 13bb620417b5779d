"""A publishing connection that is not used is closed, and nobody who uses it again notices."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import ConsumerOptions, ConsumerState, TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._connection import LinkState
from support import RawClient, TcpProxy, Vhost, eventually
from support.collector import Collector

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]
SOON = 0.1
NEVER = 600.0
"""Seconds without use for tests that close the connection themselves."""


def rest(transport: RabbitTransport) -> bool:
    """What happens when the time without use is over: whether the connection was closed."""
    outcome: SimpleQueue[bool] = SimpleQueue()
    core = transport._started()
    core.loop.put(lambda _none: outcome.put(core.idle.rest()))
    return outcome.get(timeout=10)


@contextmanager
def closing_again_and_again(transport: RabbitTransport) -> Iterator[list[bool]]:
    """`rest` in another thread, as often as it can; what came of each."""
    closed, is_over = list[bool](), threading.Event()

    def close() -> None:
        while not is_over.is_set():
            closed.append(rest(transport))

    closer = threading.Thread(target=close)
    closer.start()
    try:
        yield closed
    finally:
        is_over.set()
        closer.join(30)


def connection_names(vhost: Vhost) -> set[str]:
    """By the broker's own list, which lags: at least the test's client is in it."""
    found = {connection["name"] for connection in vhost.connections() if connection.get("name")}
    assert found
    return found


def is_resting(transport: RabbitTransport) -> bool:
    link = transport._started().link
    return link.state is LinkState.IDLE and not link._leaving


def test_u038_it_is_closed_and_opened_again_by_the_next_use_without_a_word_in_the_log(
    vhost: Vhost,
    make_transport: Make,
    message: Message,
    raw_client: RawClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.url, idle_timeout=SOON)
    names = eventually(lambda: connection_names(vhost), 10)

    with caplog.at_level(logging.INFO):
        for number in range(10):
            transport.publish(message("work", number))
            eventually(lambda: is_resting(transport))
        # The broker's own list, which lags, has none but the test's client.
        eventually(lambda: connection_names(vhost) == names, 15)
        assert transport.queue_status("work") is not None

    assert [int(got.body) for got in raw_client.drain("work")] == list(range(10))
    assert transport.statistics().connects == 11
    assert [record for record in caplog.records if record.name.startswith(("amqp_tasks", "pika"))] == []


def test_it_stays_by_default(vhost: Vhost, make_transport: Make) -> None:
    transport = make_transport(vhost.url)
    transport.open(timeout=5)

    timers: SimpleQueue[bool] = SimpleQueue()
    core = transport._started()
    core.loop.put(lambda _none: timers.put(core.idle._timeout is None))

    assert timers.get(timeout=5)
    assert core.link.state is LinkState.OPEN


def test_a_message_that_races_the_close_is_neither_refused_nor_lost_nor_doubled(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.url, idle_timeout=NEVER)
    rounds = 100

    with closing_again_and_again(transport) as closed:
        for number in range(rounds):
            transport.publish(message("work", number))

    assert [int(got.body) for got in raw_client.drain("work")] == list(range(rounds))
    assert transport.statistics().resent == 0
    # Else nothing was raced.
    assert closed.count(True) > rounds / 20
    assert closed.count(False) > rounds / 20


def test_an_operation_that_races_the_close_is_answered(vhost: Vhost, make_transport: Make) -> None:
    transport = make_transport(vhost.url, idle_timeout=NEVER)
    rounds = 100

    with closing_again_and_again(transport) as closed:
        for number in range(rounds):
            queue = Queue(f"q{number}", type=QueueType.CLASSIC)
            transport.ensure_topology(Topology(queues=(queue,)), mode=TopologyMode.DECLARE)

    assert closed.count(True) > rounds / 20
    assert all(transport.queue_status(f"q{number}") is not None for number in range(rounds))


def test_a_consumer_keeps_it_open(vhost: Vhost, make_transport: Make, raw_client: RawClient) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.url, idle_timeout=NEVER)
    transport.open(timeout=5)
    collector = Collector()
    consumer = transport.consume(
        ("work",),
        ConsumerOptions(prefetch=1),
        on_deliveries=collector.on_deliveries,
        on_event=collector.on_event,
    )
    eventually(lambda: ConsumerState.CONSUMING in [event.state for event in collector.events])

    assert not rest(transport)
    consumer.close(timeout=5)

    eventually(lambda: rest(transport))


def test_a_message_without_its_confirm_keeps_it_open(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient, proxy: TcpProxy
) -> None:
    raw_client.declare("work")
    transport = make_transport(proxy.url_for(), idle_timeout=NEVER)
    transport.open(timeout=5)
    eventually(lambda: transport._started().publisher.is_flowing)
    outcomes: SimpleQueue[object] = SimpleQueue()

    proxy.half_open()
    transport.publish_nowait(message("work"), outcomes.put)
    eventually(lambda: transport.statistics().published == 1)

    assert not rest(transport)
    proxy.cut()
    proxy.resume()
    assert outcomes.get(timeout=30) is None


def test_a_goodbye_that_is_not_answered_holds_nobody_up(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient, proxy: TcpProxy
) -> None:
    raw_client.declare("work")
    transport = make_transport(proxy.url_for(), idle_timeout=NEVER, connection_timeout=0.5)
    transport.open(timeout=5)
    eventually(lambda: transport._started().publisher.is_flowing)

    proxy.half_open()
    assert rest(transport)
    assert not is_resting(transport)
    eventually(lambda: is_resting(transport))
    proxy.resume()
    transport.publish(message("work"))

    assert len(raw_client.drain("work")) == 1


def test_a_transport_can_be_closed_while_the_goodbye_is_not_answered(
    vhost: Vhost, make_transport: Make, proxy: TcpProxy
) -> None:
    transport = make_transport(proxy.url_for(), idle_timeout=NEVER)
    transport.open(timeout=5)
    eventually(lambda: transport._started().publisher.is_flowing)
    core = transport._started()

    proxy.half_open()
    assert rest(transport)
    transport.close(timeout=1.0)

    assert not core.thread.is_alive
    eventually(lambda: proxy.connection_count == 0)
