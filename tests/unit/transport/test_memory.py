"""What `memory://` has beside the contract of both transports."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Overflow, Queue, Topology
from amqp_tasks.errors import ConfigurationError, PublishNacked
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.settings import Conf
from amqp_tasks.transport import ConsumerOptions, Settlement, TopologyMode, Transport, connect
from support import eventually
from support.collector import Collector

Open = Callable[[str], Transport]


@pytest.fixture
def open_transport() -> Iterator[Open]:
    """Make transports, closed after the test."""
    opened: list[Transport] = []

    def make(url: str) -> Transport:
        conf = Conf()
        conf.update(broker_url=url)
        opened.append(connect(conf.settings()))
        return opened[-1]

    yield make
    for transport in opened:
        transport.close()


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/"


@pytest.fixture
def transport(open_transport: Open, url: str) -> Transport:
    return open_transport(url)


def declare(transport: Transport, *queues: Queue, **parts: Any) -> None:
    transport.ensure_topology(Topology(queues=queues, **parts), mode=TopologyMode.DECLARE)


def message(body: bytes = b"", routing_key: str = "q", **properties: Any) -> OutgoingMessage:
    made = Properties(**properties)
    return OutgoingMessage(exchange="", routing_key=routing_key, body=body, properties=made)


def depth(transport: Transport, queue_name: str) -> int:
    status = transport.queue_status(queue_name)
    return -1 if status is None else status.messages


def consume(transport: Transport, *queue_names: str, prefetch: int = 10) -> Collector:
    """The transport closes the consumer."""
    collector = Collector()
    collector.consumer = transport.consume(
        queue_names,
        ConsumerOptions(prefetch=prefetch),
        on_deliveries=collector.on_deliveries,
        on_event=collector.on_event,
    )
    return collector


def test_transports_of_one_url_share_a_broker_that_outlives_them(open_transport: Open, url: str) -> None:
    first = open_transport(url)
    declare(first, Queue("q"))
    first.publish(message())
    first.close()

    assert depth(open_transport(url), "q") == 1
    assert depth(open_transport(f"memory://{uuid.uuid4().hex}/"), "q") == -1


def test_a_forked_child_starts_with_an_empty_broker(url: str) -> None:
    code = f"""
import os
from amqp_routing import Queue, Topology
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.settings import Conf
from amqp_tasks.transport import TopologyMode, connect
conf = Conf()
conf.update(broker_url={url!r})
transport = connect(conf.settings())
whole = Topology(queues=(Queue("q"),))
transport.ensure_topology(whole, mode=TopologyMode.DECLARE)
transport.publish(OutgoingMessage(exchange="", routing_key="q", body=b"", properties=Properties()))
if os.fork() == 0:
    assert transport.queue_status("q") is None
    transport.ensure_topology(whole, mode=TopologyMode.DECLARE)
    assert transport.queue_status("q").messages == 0
    transport.close()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]), transport.queue_status("q").messages)
transport.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.stdout.split(), done.stderr) == (["7", "1"], "")


def test_a_producer_of_rabbitmq_does_not_import_kombu() -> None:
    code = "import amqp_tasks.transport, sys; print('kombu' in sys.modules, 'pika' in sys.modules)"
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, env=env
    )

    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "topology",
    [
        Topology(exchanges=(Exchange("h", ExchangeType.CONSISTENT_HASH),)),
    ],
)
def test_what_it_cannot_do_exactly_is_refused(transport: Transport, topology: Topology) -> None:
    with pytest.raises(ConfigurationError, match="memory:// does not have: use an amqp:// broker"):
        transport.ensure_topology(topology, mode=TopologyMode.DECLARE)


def test_a_message_expires_into_the_dead_letters_while_nobody_asks(transport: Transport) -> None:
    dead = Queue("q", message_ttl=0.05, dead_letter_exchange="", dead_letter_routing_key="late")
    declare(transport, dead, Queue("late"))
    collector = consume(transport, "late")

    transport.publish(message(b"x", expiration="10000"))

    delivery = collector.wait_deliveries(1)[0]
    death = delivery.properties.headers["x-death"][0]
    assert (delivery.body, delivery.properties.expiration) == (b"x", None)
    assert (death["reason"], death["queue"], death["original-expiration"]) == ("expired", "q", "10000")


def test_a_message_that_can_be_handed_out_at_once_does_not_expire(transport: Transport) -> None:
    declare(transport, Queue("q"))
    collector = consume(transport, "q", prefetch=1)

    transport.publish(message(b"1", expiration="0"))
    transport.publish(message(b"2", expiration="0"))

    collector.wait_deliveries(1)
    eventually(lambda: depth(transport, "q") == 0)
    assert collector.bodies == [b"1"]


def test_a_full_queue_drops_its_oldest_into_the_dead_letters(transport: Transport) -> None:
    declare(
        transport,
        Queue("q", max_length=2, dead_letter_exchange="", dead_letter_routing_key="old"),
        Queue("old"),
    )

    transport.publish_many([message(b"%d" % number) for number in range(4)])

    assert depth(transport, "q") == 2
    assert consume(transport, "old").wait_deliveries(2)[1].body == b"1"


def test_a_full_queue_that_refuses_takes_no_more_bytes(transport: Transport) -> None:
    declare(transport, Queue("q", max_length_bytes=10, overflow=Overflow.REJECT_PUBLISH))
    transport.publish(message(bytes(8)))

    with pytest.raises(PublishNacked, match="'q' is full"):
        transport.publish(message(bytes(3)))

    transport.publish(message(bytes(2)))
    assert depth(transport, "q") == 2


def test_an_unused_queue_is_deleted_after_its_expires(transport: Transport) -> None:
    declare(transport, Queue("unused", expires=0.05), Queue("used", expires=0.05))
    consume(transport, "used")
    declare(transport, Queue("other"))

    eventually(lambda: transport.compare_topology(Topology(queues=(Queue("unused", expires=0.05),))) != ())

    assert depth(transport, "used") == 0


def test_a_single_active_consumer_is_followed_by_the_next(transport: Transport) -> None:
    declare(transport, Queue("q", single_active_consumer=True))
    first, second = consume(transport, "q"), consume(transport, "q")
    transport.publish(message(b"1"))
    first.wait_deliveries(1)
    transport.publish(message(b"2"))
    first.wait_deliveries(2)
    assert first.consumer is not None

    first.consumer.close(timeout=5)

    assert [each.body for each in second.wait_deliveries(2)] == [b"1", b"2"]
    assert all(each.redelivered for each in second.deliveries)


def test_a_quorum_queue_counts_how_often_a_message_came_back(transport: Transport) -> None:
    """Row B033."""
    declare(transport, Queue("q"))
    transport.publish(message(b"x"))
    collector = consume(transport, "q")
    assert collector.consumer is not None

    for count in (1, 2):
        collector.consumer.settle(collector.wait_deliveries(count)[-1], Settlement.REQUEUE)

    counts = [each.properties.headers.get("x-delivery-count") for each in collector.wait_deliveries(3)]
    assert counts == [None, 1, 2]


def test_dead_letters_that_go_round_without_a_consumer_are_dropped(transport: Transport) -> None:
    # Each declaration for itself is fine, as there is a way out to the sink; together they make a circle.
    ways = {
        "from-a": Exchange("from-a", ExchangeType.FANOUT),
        "from-b": Exchange("from-b", ExchangeType.FANOUT),
    }
    queues = {name: Queue(name, message_ttl=0.01, dead_letter_exchange=f"from-{name}") for name in ("a", "b")}
    for name, target in (("a", "sink"), ("b", "sink"), ("a", "b"), ("b", "a")):
        own = queues[target] if target in queues else Queue("sink")
        out = f"from-{target}" if target in queues else f"from-{name}"
        declare(
            transport,
            own,
            Queue("sink"),
            exchanges=tuple(ways.values()),
            bindings=(Binding(f"from-{name}", target), Binding(out, "sink")),
        )

    transport.publish(message(b"x", "a"))

    eventually(lambda: depth(transport, "sink") == 2)
    assert (depth(transport, "a"), depth(transport, "b")) == (0, 0)


def test_a_forged_death_note_harms_nothing(transport: Transport) -> None:
    declare(transport, Queue("q", dead_letter_exchange="", dead_letter_routing_key="dead"), Queue("dead"))
    for forged in ("text", [1, None], [{"count": 3}], {"a": 1}):
        transport.publish(message(headers={"x-death": forged}))
    collector = consume(transport, "q")
    assert collector.consumer is not None
    for delivery in collector.wait_deliveries(4):
        collector.consumer.settle(delivery, Settlement.DROP)

    buried = consume(transport, "dead").wait_deliveries(4)

    assert {each.properties.headers["x-death"][0]["reason"] for each in buried} == {"rejected"}


def test_a_forgotten_transport_warns(open_transport: Open, url: str) -> None:
    conf = Conf()
    conf.update(broker_url=url)
    transport = connect(conf.settings())
    transport.open(timeout=1)

    with pytest.warns(ResourceWarning, match="was not closed"):
        del transport
