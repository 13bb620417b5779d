"""The connection that a brief consumer leaves to the next one: "A connection that is handed on" in the docs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from amqp_routing import Queue, Topology
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import ConsumerOptions, ConsumerState, TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport, _kept
from support import TcpProxy, Vhost, eventually
from support.collector import Collector
from support.scripted_broker import Fault, ScriptedBroker

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]
End = Callable[[ScriptedBroker], None]

ENDS: dict[str, End] = {
    "by the admin": lambda broker: broker.close_connections(320, "CONNECTION_FORCED - closed by the admin"),
    "by an error": lambda broker: broker.close_connections(541, "INTERNAL_ERROR"),
    "without a word": lambda broker: broker.reset_connections(),
}


def look(transport: RabbitTransport, queue: str = "work", *, is_brief: bool = True) -> Collector:
    """A consumer that has not been closed."""
    seen = Collector()
    seen.consumer = transport.consume(
        [queue],
        ConsumerOptions(prefetch=10, exclusive=True, is_brief=is_brief),
        on_deliveries=seen.on_deliveries,
        on_event=seen.on_event,
    )
    return seen


def close(seen: Collector, *, timeout: float = 5.0) -> None:
    assert seen.consumer is not None
    seen.consumer.close(timeout=timeout)


def looked(transport: RabbitTransport, *, is_brief: bool = True) -> Collector:
    """A consumer that got the message, and is closed."""
    seen = look(transport, is_brief=is_brief)
    seen.wait_deliveries(1)
    close(seen)
    return seen


def keeps(transport: RabbitTransport) -> bool:
    """Whether a connection is kept."""
    return bool(transport._started()._kept.links)


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    """A broker of the test's own, with a message in the queue `work`."""
    with ScriptedBroker() as made:
        made.put("work", b"1")
        yield made


@pytest.fixture
def transport(make_transport: Make, message: Message, proxy: TcpProxy) -> RabbitTransport:
    """A transport to RabbitMQ, with a message in the queue `work`."""
    made = make_transport(proxy.url_for())
    made.ensure_topology(Topology(queues=(Queue("work"), Queue("other"))), mode=TopologyMode.DECLARE)
    made.publish(message("work"))
    return made


def test_a_brief_consumer_goes_on_with_the_connection_of_the_one_before_it(
    transport: RabbitTransport, proxy: TcpProxy
) -> None:
    redelivered = [looked(transport).deliveries[0].redelivered for _ in range(4)]

    assert redelivered == [False, True, True, True]
    assert transport.statistics().connects == 2
    assert proxy.connection_count == 2
    status = transport.queue_status("work")
    assert status is not None
    eventually(lambda: transport.queue_status("work") == type(status)(name="work", messages=1, consumers=0))


def test_consumers_that_are_not_brief_neither_leave_nor_take_a_connection(
    transport: RabbitTransport, proxy: TcpProxy
) -> None:
    looked(transport, is_brief=False)
    looked(transport)
    looked(transport, is_brief=False)

    assert transport.statistics().connects == 4
    eventually(lambda: proxy.connection_count == 2)


def test_of_two_that_look_at_once_each_is_alone_and_one_connection_is_kept(
    transport: RabbitTransport, message: Message, proxy: TcpProxy
) -> None:
    transport.publish(message("other"))
    both = [look(transport), look(transport, "other")]
    for seen in both:
        seen.wait_deliveries(1)
    assert proxy.connection_count == 3

    for seen in both:
        close(seen)
    looked(transport)

    assert transport.statistics().connects == 3
    eventually(lambda: proxy.connection_count == 2)


def test_a_consumer_of_a_queue_that_is_deleted_leaves_its_connection(
    transport: RabbitTransport, proxy: TcpProxy
) -> None:
    """As a look does that has concluded a join."""
    seen = look(transport)
    seen.wait_deliveries(1)
    assert seen.consumer is not None
    seen.consumer.pause()
    transport.delete_queue("work")
    close(seen)
    missing = look(transport)
    missing.wait_event(ConsumerState.CANCELLED)
    close(missing)
    empty = look(transport, "other")
    empty.wait_event(ConsumerState.CONSUMING)
    close(empty)

    assert transport.statistics().connects == 2


def test_a_queue_that_goes_is_told_and_not_asked_for_again(transport: RabbitTransport) -> None:
    """A broker that has not done deleting closes the connection of who asks; and the connection can be handed on at once."""
    for _ in range(20):
        queue = Topology(queues=(Queue("going"),))
        transport.ensure_topology(queue, mode=TopologyMode.DECLARE, is_lasting=False)
        seen = look(transport, "going")
        seen.wait_event(ConsumerState.CONSUMING)
        transport.delete_queue("going")
        seen.wait_event(ConsumerState.CANCELLED)
        close(seen)
        assert [event.state for event in seen.events] == ["consuming", "cancelled", "closed"]

    assert transport.statistics().connects == 2


def test_a_connection_for_which_nobody_comes_is_closed(
    transport: RabbitTransport, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kept, "KEPT_FOR", 0.05)

    looked(transport)

    eventually(lambda: proxy.connection_count == 1)
    assert not keeps(transport)
    looked(transport)
    assert transport.statistics().connects == 3


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_kept_connection_that_is_lost_is_forgotten(
    scripted: ScriptedBroker, make_transport: Make, end: End
) -> None:
    transport = make_transport(scripted.url)
    transport.open(timeout=10)
    looked(transport)
    assert keeps(transport)

    end(scripted)
    eventually(lambda: not keeps(transport))
    opened = scripted.seen["Connection.Open"]
    again = looked(transport)

    assert again.events_of(ConsumerState.LOST) == []
    assert scripted.seen["Connection.Open"] > opened


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_connection_that_is_lost_in_use_is_told_and_the_next_one_is_handed_on(
    scripted: ScriptedBroker, make_transport: Make, end: End
) -> None:
    transport = make_transport(scripted.url)
    looked(transport)
    seen = look(transport)
    seen.wait_deliveries(1)

    end(scripted)
    seen.wait_event(ConsumerState.LOST)
    seen.wait_deliveries(2)
    close(seen)
    opened = transport.statistics().connects
    looked(transport)

    assert transport.statistics().connects == opened


def test_what_hangs_is_not_handed_on(scripted: ScriptedBroker, make_transport: Make) -> None:
    transport = make_transport(scripted.url)
    scripted.misbehave("Channel.Close", Fault.NEVER)
    seen = look(transport)
    seen.wait_deliveries(1)
    close(seen, timeout=0.2)
    assert not keeps(transport)

    scripted.behave()
    scripted.misbehave("Queue.Declare", Fault.NEVER)
    asked = scripted.seen["Queue.Declare"]
    waiting = look(transport)
    eventually(lambda: scripted.seen["Queue.Declare"] > asked)
    close(waiting)
    assert not keeps(transport)

    scripted.behave()
    looked(transport)
    assert keeps(transport)


def test_a_transport_says_goodbye_on_what_it_keeps_and_on_what_is_in_use(
    scripted: ScriptedBroker, make_transport: Make
) -> None:
    transport = make_transport(scripted.url)
    transport.open(timeout=10)
    looked(transport)
    transport.close()
    eventually(lambda: scripted.seen["Connection.Close"] == 2)

    transport = make_transport(scripted.url)
    transport.open(timeout=10)
    looked(transport)
    look(transport).wait_deliveries(1)
    transport.close()
    eventually(lambda: scripted.seen["Connection.Close"] == 4)


FORKING = """
import os, sys
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import unquote, urlsplit
from amqp_routing import Queue, Topology
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport import ConsumerOptions, TopologyMode
from amqp_tasks.transport.rabbitmq import Address, RabbitTransport, TransportOptions

parts = urlsplit(sys.argv[1])
address = Address(host=parts.hostname, port=parts.port, user="guest", password="guest", vhost=unquote(parts.path[1:]))
transport = RabbitTransport(TransportOptions(addresses=(address,)))
transport.ensure_topology(Topology(queues=(Queue("work"),)), mode=TopologyMode.DECLARE)
transport.publish(OutgoingMessage(exchange="", routing_key="work", body=b"1", properties=Properties()))

def look():
    came = SimpleQueue()
    options = ConsumerOptions(prefetch=1, exclusive=True, is_brief=True)
    consumer = transport.consume(["work"], options, on_deliveries=came.put, on_event=lambda event: None)
    came.get(timeout=10)
    consumer.close(timeout=5)

def sockets():
    return [name for name in Path("/proc/self/fd").iterdir() if name.exists() and "socket" in str(name.readlink())]

look()
pid = os.fork()
if not pid:
    os._exit(len(sockets()))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child has sockets of its parent"
look()
assert transport.statistics().connects == 2, transport.statistics()
transport.close()
"""


def test_a_fork_leaves_the_kept_connection_to_the_parent_alone(vhost: Vhost) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING, vhost.url], check=True, timeout=30)
