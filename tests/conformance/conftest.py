"""Both transports behind one door."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.settings import Conf
from amqp_tasks.transport import Consumer, ConsumerOptions, TopologyMode, Transport, connect
from amqp_tasks.transport.memory import MemoryTransport
from support import Vhost
from support.collector import Collector
from support.conformance import Consume, Door, Message


@pytest.fixture(params=["memory", "rabbitmq"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """A broker of its own for the test."""
    opened: list[Transport] = []
    vhost: Vhost | None = request.getfixturevalue("vhost") if request.param == "rabbitmq" else None
    url = vhost.url if vhost is not None else f"memory://{uuid.uuid4().hex}/"

    def open_transport(**settings: Any) -> Transport:
        conf = Conf()
        conf.update(broker_url=url, **settings)
        transport = connect(conf.settings())
        opened.append(transport)
        return transport

    def drop() -> None:
        if vhost is not None:
            # One that publishes and one that consumes; the API shows a new one late.
            vhost.close_connections(at_least=2)
            return
        transport = next(each for each in opened if isinstance(each, MemoryTransport))
        transport.drop_connections()

    yield Door(request.param, open_transport, drop)
    for transport in opened:
        transport.close()


@pytest.fixture
def transport(door: Door) -> Transport:
    """A transport to it."""
    return door.open()


@pytest.fixture
def queue(transport: Transport) -> str:
    """A quorum queue, declared."""
    transport.ensure_topology(Topology(queues=(Queue("q"),)), mode=TopologyMode.DECLARE)
    return "q"


@pytest.fixture
def classic(transport: Transport) -> str:
    """A classic queue, declared."""
    queue = Queue("classic", type=QueueType.CLASSIC)
    transport.ensure_topology(Topology(queues=(queue,)), mode=TopologyMode.DECLARE)
    return queue.name


@pytest.fixture
def consume(transport: Transport) -> Iterator[Consume]:
    """Consume queues and collect what comes; closed after the test."""
    made: list[Consumer] = []
    default = transport

    def start(
        *queue_names: str,
        prefetch: int = 10,
        no_ack: bool = False,
        exclusive: bool = False,
        paused_queues: Collection[str] = (),
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
        settle_delay: float = 0.002,
        declare: Topology | None = None,
        transport: Transport | None = None,
    ) -> tuple[Consumer, Collector]:
        collector = Collector()
        consumer = (transport or default).consume(
            queue_names,
            ConsumerOptions(
                prefetch=prefetch,
                no_ack=no_ack,
                exclusive=exclusive,
                paused_queues=paused_queues,
                arguments=arguments or {},
                settle_delay=settle_delay,
            ),
            on_deliveries=collector.on_deliveries,
            on_event=collector.on_event,
            declare=declare,
        )
        collector.consumer = consumer
        made.append(consumer)
        return consumer, collector

    yield start
    for consumer in made:
        consumer.close(timeout=5)


@pytest.fixture
def message() -> Message:
    """Make a message, by default to the queue `q`."""

    def make(
        body: bytes = b"",
        routing_key: str = "q",
        *,
        exchange: str = "",
        mandatory: bool = True,
        **properties: Any,
    ) -> OutgoingMessage:
        made = Properties(**properties)
        return OutgoingMessage(
            exchange=exchange, routing_key=routing_key, body=body, properties=made, mandatory=mandatory
        )

    return make
