"""Consuming from a real RabbitMQ."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.errors import BrokerAccessError, BrokerOperationError
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import (
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    Settlement,
    TopologyMode,
)
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from support import RawClient, TcpProxy, Vhost, eventually

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

WORK = Topology(queues=(Queue("work", type=QueueType.CLASSIC), Queue("other", type=QueueType.CLASSIC)))


class Sink:
    """What a consumer handed out."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.events: list[ConsumerEvent] = []

    def take(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries += deliveries

    @property
    def bodies(self) -> list[str]:
        return [delivery.body.decode() for delivery in self.deliveries]

    def wait_for(self, count: int) -> list[Delivery]:
        def check() -> list[Delivery]:
            assert len(self.deliveries) >= count
            return self.deliveries

        return eventually(check, 10)

    def wait_for_state(self, state: ConsumerState, count: int = 1) -> list[ConsumerEvent]:
        def check() -> list[ConsumerEvent]:
            found = [event for event in self.events if event.state is state]
            assert len(found) >= count, self.events
            return found

        return eventually(check, 10)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def transport(vhost: Vhost, make_transport: Make) -> RabbitTransport:
    made = make_transport(vhost.url)
    made.ensure_topology(WORK, mode=TopologyMode.DECLARE)
    return made


def start(
    transport: RabbitTransport, sink: Sink, *names: str, prefetch: int = 10, **more: object
) -> Consumer:
    options = ConsumerOptions(prefetch=prefetch, **more)  # type: ignore[arg-type]
    return transport.consume(
        list(names) or ["work"], options, on_deliveries=sink.take, on_event=sink.events.append
    )


def test_a_delivery_tells_where_it_came_from(
    transport: RabbitTransport, sink: Sink, message: Message
) -> None:
    transport.publish(message("other", "x", headers={"a": [1, {"b": None}]}, priority=2))

    start(transport, sink, "work", "other")

    (delivery,) = sink.wait_for(1)
    assert (delivery.queue_name, delivery.exchange, delivery.routing_key) == ("other", "", "other")
    assert (delivery.body, delivery.redelivered, delivery.delivery_tag) == (b"x", False, 1)
    assert delivery.properties.headers == {"a": [1, {"b": None}]}
    assert (delivery.properties.correlation_id, delivery.properties.priority) == ("x", 2)


def test_prefetch_bounds_what_is_unacked(transport: RabbitTransport, sink: Sink, message: Message) -> None:
    """Rows R08, U020, U021."""
    transport.publish_many(message("work", number) for number in range(20))
    consumer = start(transport, sink, prefetch=5)

    sink.wait_for(5)
    assert transport.queue_status("work").messages == 15  # type: ignore[union-attr]
    consumer.settle(sink.deliveries[0], Settlement.ACK)

    sink.wait_for(6)
    assert sink.bodies == [str(number) for number in range(6)]


def test_settlements_in_any_order_leave_what_they_should(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    transport.publish_many(message("work", number) for number in range(300))
    consumer = start(transport, sink, prefetch=300)
    deliveries = list(sink.wait_for(300))
    kept = {7, 8, 9, 120, 299}

    for delivery in sorted(deliveries, key=lambda each: (each.delivery_tag * 7919) % 301):
        number = int(delivery.body)
        if number not in kept:
            consumer.settle(delivery, Settlement.DROP if number % 2 else Settlement.ACK)
    consumer.close(timeout=5)

    assert {int(got.body) for got in raw_client.drain("work")} == kept


def test_a_requeued_delivery_comes_again_marked_redelivered(
    transport: RabbitTransport, sink: Sink, message: Message
) -> None:
    transport.publish(message("work", "x"))
    consumer = start(transport, sink)

    consumer.settle(sink.wait_for(1)[0], Settlement.REQUEUE)

    again = sink.wait_for(2)[1]
    assert (again.body, again.redelivered) == (b"x", True)


def start_acking(
    transport: RabbitTransport, sink: Sink, *, prefetch: int, settle_delay: float, count: int
) -> Consumer:
    """A consumer that acks the first `count` deliveries while they are handed out."""

    def take(deliveries: Sequence[Delivery]) -> None:
        is_known.wait(10)
        for delivery in deliveries[: max(0, count - len(sink.deliveries))]:
            consumer.settle(delivery, Settlement.ACK)
        sink.take(deliveries)

    is_known = threading.Event()
    consumer = transport.consume(
        ["work"],
        ConsumerOptions(prefetch=prefetch, settle_delay=settle_delay),
        on_deliveries=take,
        on_event=sink.events.append,
    )
    is_known.set()
    return consumer


def test_settlements_made_while_deliveries_are_handed_out_are_sent_once_they_are_many(
    transport: RabbitTransport, sink: Sink, message: Message
) -> None:
    transport.publish_many(message("work", number) for number in range(50))

    start_acking(transport, sink, prefetch=8, settle_delay=3600.0, count=50)

    assert len(sink.wait_for(50)) == 50


def test_few_settlements_made_while_deliveries_are_handed_out_are_sent_after_the_delay(
    transport: RabbitTransport, sink: Sink, message: Message
) -> None:
    transport.publish_many(message("work", number) for number in range(9))

    start_acking(transport, sink, prefetch=8, settle_delay=0.01, count=1)

    assert len(sink.wait_for(9)) == 9  # the ninth comes for the ack of the first


def test_settlements_that_wait_are_sent_at_the_close(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    transport.publish_many(message("work", number) for number in range(2))
    consumer = start_acking(transport, sink, prefetch=100, settle_delay=3600.0, count=2)
    sink.wait_for(2)

    consumer.close(timeout=5)

    assert raw_client.drain("work") == []


def test_settling_twice_is_an_error(transport: RabbitTransport, sink: Sink, message: Message) -> None:
    """Row U047."""
    transport.publish(message("work"))
    consumer = start(transport, sink)
    (delivery,) = sink.wait_for(1)
    consumer.settle(delivery, Settlement.ACK)

    with pytest.raises(RuntimeError, match="settled before"):
        consumer.settle(delivery, Settlement.ACK)


def test_pause_stops_new_deliveries_and_keeps_open_ones_valid(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    consumer = start(transport, sink)
    sink.wait_for_state(ConsumerState.CONSUMING)
    transport.publish(message("work", "open"))
    (delivery,) = sink.wait_for(1)

    consumer.pause()
    eventually(lambda: _consumers(raw_client, 0))
    transport.publish(message("work", "later"))
    consumer.settle(delivery, Settlement.ACK)
    assert sink.bodies == ["open"]
    consumer.resume()

    sink.wait_for(2)
    assert sink.bodies == ["open", "later"]
    assert transport.statistics().stale_settlements == 0


def _consumers(client: RawClient, count: int) -> None:
    assert client.consumers("work") == count


def test_a_new_prefetch_applies_and_keeps_open_deliveries_valid(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    """Row U019."""
    transport.publish_many(message("work", number) for number in range(12))
    consumer = start(transport, sink, prefetch=2)
    sink.wait_for(2)

    consumer.set_prefetch(7)
    for delivery in list(sink.wait_for(2)):
        consumer.settle(delivery, Settlement.ACK)

    sink.wait_for(9)
    assert raw_client.depth("work") == 3
    assert transport.statistics().stale_settlements == 0


def test_a_deleted_queue_is_told_and_consumed_again_when_it_is_back(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    start(transport, sink, "work", "other")
    sink.wait_for_state(ConsumerState.CONSUMING)

    raw_client.delete("work")
    (cancelled,) = sink.wait_for_state(ConsumerState.CANCELLED)
    transport.publish(message("other", "neighbour"))
    sink.wait_for(1)
    transport.publish(message("work", "again"))

    sink.wait_for(2)
    assert cancelled.queue_name == "work"
    assert sink.bodies == ["neighbour", "again"]
    assert sink.deliveries[1].epoch == sink.deliveries[0].epoch


def test_a_missing_queue_is_declared_when_it_is_known_how(
    vhost: Vhost, make_transport: Make, sink: Sink, message: Message
) -> None:
    """Row U010."""
    transport = make_transport(vhost.url)

    transport.consume(
        ["work"],
        ConsumerOptions(prefetch=1),
        on_deliveries=sink.take,
        on_event=sink.events.append,
        declare=WORK,
    )

    sink.wait_for_state(ConsumerState.CONSUMING)
    transport.publish(message("work", "x"))
    assert sink.wait_for(1)[0].body == b"x"


def test_a_missing_queue_that_nobody_declares_is_waited_for(
    vhost: Vhost, make_transport: Make, sink: Sink, raw_client: RawClient
) -> None:
    transport = make_transport(vhost.url)
    start(transport, sink)
    sink.wait_for_state(ConsumerState.CANCELLED)

    raw_client.declare("work")

    sink.wait_for_state(ConsumerState.CONSUMING)


def test_promise_6_a_connection_closed_by_the_admin_comes_back_and_old_settlements_are_stale(
    vhost: Vhost, transport: RabbitTransport, sink: Sink, message: Message
) -> None:
    """Rows U009, U012."""
    transport.publish(message("work", "x"))
    consumer = start(transport, sink)
    (first,) = sink.wait_for(1)

    vhost.close_connections(at_least=2)
    sink.wait_for(2)
    consumer.settle(first, Settlement.ACK)
    again = sink.deliveries[1]
    assert (again.body, again.redelivered) == (b"x", True)
    assert again.epoch > first.epoch
    consumer.settle(again, Settlement.ACK)

    sink.wait_for_state(ConsumerState.LOST)
    eventually(lambda: _stale(transport, 1))
    consumer.close(timeout=5)
    with RawClient(vhost.url) as client:
        assert client.depth("work") == 0


def _stale(transport: RabbitTransport, count: int) -> None:
    assert transport.statistics().stale_settlements == count


def test_no_permission_to_read_is_final(
    vhost: Vhost, transport: RabbitTransport, make_transport: Make, sink: Sink
) -> None:
    start(make_transport(vhost.limited_url(write=".*", configure=".*")), sink)

    (failed,) = sink.wait_for_state(ConsumerState.FAILED)
    assert isinstance(failed.error, BrokerOperationError)
    assert failed.error.reply_code == 403


def test_a_virtual_host_that_may_not_be_entered_is_final(
    vhost: Vhost, make_transport: Make, sink: Sink
) -> None:
    start(make_transport(vhost.limited_url(permitted=False)), sink)

    (failed,) = sink.wait_for_state(ConsumerState.FAILED)
    assert isinstance(failed.error, BrokerAccessError)


def test_the_end_of_an_io_thread_whose_descriptors_were_closed_under_it_is_final(
    transport: RabbitTransport, sink: Sink
) -> None:
    start(transport, sink)
    sink.wait_for_state(ConsumerState.CONSUMING)
    loop = transport._started().loop

    loop.put(lambda _none: loop._poller._poll.close())

    (failed,) = sink.wait_for_state(ConsumerState.FAILED)
    assert failed.is_broken


def test_a_flush_that_waits_ends_with_the_io_thread(
    make_transport: Make, sink: Sink, raw_client: RawClient, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_client.declare("work")
    transport = make_transport(proxy.url_for())
    consumer = start(transport, sink)
    sink.wait_for_state(ConsumerState.CONSUMING)
    loop = transport._started().loop
    # As with a socket that is full.
    monkeypatch.setattr(FastConnection, "has_written", False)
    flushed = threading.Event()

    def flush() -> None:
        consumer.flush(timeout=60)
        flushed.set()

    thread = threading.Thread(target=flush)
    thread.start()
    eventually(lambda: bool(consumer._flushing))  # type: ignore[attr-defined]
    loop.put(lambda _none: loop._poller._poll.close())

    assert flushed.wait(30)
    thread.join(10)


def test_an_exclusive_queue_of_another_is_final(
    transport: RabbitTransport, make_transport: Make, vhost: Vhost, sink: Sink
) -> None:
    first = Sink()
    start(transport, first, exclusive=True)
    first.wait_for_state(ConsumerState.CONSUMING)

    start(make_transport(vhost.url), sink)

    (failed,) = sink.wait_for_state(ConsumerState.FAILED)
    assert isinstance(failed.error, BrokerOperationError)


def test_close_flushes_settlements_and_hands_the_rest_back(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    """Row U088."""
    transport.publish_many(message("work", number) for number in range(100))
    consumer = start(transport, sink, prefetch=100)
    for delivery in list(sink.wait_for(100))[:60]:
        consumer.settle(delivery, Settlement.ACK)

    consumer.close(timeout=5)
    consumer.close(timeout=5)

    assert {int(got.body) for got in raw_client.drain("work")} == set(range(60, 100))
    sink.wait_for_state(ConsumerState.CLOSED)


def test_consuming_without_acks_needs_no_settlement(
    transport: RabbitTransport, sink: Sink, message: Message, raw_client: RawClient
) -> None:
    consumer = start(transport, sink, prefetch=1, no_ack=True)
    transport.publish_many(message("work", number) for number in range(50))

    for delivery in list(sink.wait_for(50)):
        consumer.settle(delivery, Settlement.ACK)
    consumer.close(timeout=5)

    assert raw_client.depth("work") == 0


def test_consumer_arguments_are_sent(
    transport: RabbitTransport, sink: Sink, message: Message, make_transport: Make, vhost: Vhost
) -> None:
    low, high = Sink(), sink
    start(transport, low, prefetch=50)
    start(make_transport(vhost.url), high, prefetch=50, arguments={"work": {"x-priority": 10}})
    low.wait_for_state(ConsumerState.CONSUMING)
    high.wait_for_state(ConsumerState.CONSUMING)

    transport.publish_many(message("work", number) for number in range(10))

    high.wait_for(10)
    assert not low.deliveries


def test_a_callback_that_raises_does_not_stop_the_consumer(
    transport: RabbitTransport, message: Message
) -> None:
    seen: list[bytes] = []
    enough = threading.Event()

    def on_deliveries(deliveries: Sequence[Delivery]) -> None:
        seen.extend(delivery.body for delivery in deliveries)
        if len(seen) >= 2:
            enough.set()
        raise ValueError("from a callback")

    consumer = transport.consume(
        ["work"], ConsumerOptions(prefetch=10), on_deliveries=on_deliveries, on_event=lambda _event: None
    )
    transport.publish(message("work", 1))
    transport.publish(message("work", 2))

    assert enough.wait(10)
    consumer.close(timeout=5)


def test_an_exclusive_consumer_waits_until_another_holder_is_gone_if_it_had_the_queue_before(
    vhost: Vhost, make_transport: Make, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    events: list[ConsumerEvent] = []
    consumer = make_transport(vhost.url).consume(
        ["work"],
        ConsumerOptions(prefetch=1, exclusive=True),
        on_deliveries=lambda _deliveries: None,
        on_event=events.append,
    )
    eventually(lambda: _count(events, ConsumerState.CONSUMING, 1))
    consumer.pause()
    # As our own lost connection does, until the broker has noticed its end.
    eventually(lambda: raw_client.consumers("work") == 0)
    tag = raw_client.channel.basic_consume("work", lambda *_: None, exclusive=True)

    consumer.resume()
    eventually(lambda: _count(events, ConsumerState.LOST, 1))
    raw_client.channel.basic_cancel(tag)

    eventually(lambda: _count(events, ConsumerState.CONSUMING, 2))
    assert ConsumerState.FAILED not in {event.state for event in events}


def _count(events: list[ConsumerEvent], state: ConsumerState, count: int) -> None:
    assert sum(event.state is state for event in events) >= count


def test_a_queue_that_may_not_be_read_any_more_is_consumed_again_when_it_may_and_holds_nobody_up(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, raw_client: RawClient, message: Message
) -> None:
    limited = vhost.limited_url(read=".*")
    for name in ("open", "shut"):
        raw_client.declare(name)
    events: list[ConsumerEvent] = []
    seen: list[Delivery] = []
    consumer = make_transport(proxy.url_for(limited)).consume(
        ["open", "shut"], ConsumerOptions(prefetch=1), on_deliveries=seen.extend, on_event=events.append
    )
    eventually(lambda: _count(events, ConsumerState.CONSUMING, 1))

    vhost.permit(limited, read="^open$")
    proxy.cut()
    eventually(lambda: _count(events, ConsumerState.CANCELLED, 1), within=10)
    lost = sum(event.state is ConsumerState.LOST for event in events)
    raw_client.publish("open", b"held all the while")
    eventually(lambda: len(seen) == 1, within=10)
    vhost.permit(limited, read=".*")
    raw_client.publish("shut", b"after")
    eventually(lambda: len(seen) == 2, within=10)

    # The one channel was not lost over further attempts: what was delivered before is still ours to settle.
    assert sum(event.state is ConsumerState.LOST for event in events) == lost == 2
    assert not any(event.state is ConsumerState.FAILED for event in events)
    for delivery in seen:
        consumer.settle(delivery, Settlement.ACK)
    consumer.close(timeout=5)
    assert raw_client.depth("open") == raw_client.depth("shut") == 0


def test_a_virtual_host_that_may_not_be_entered_any_more_is_entered_again_when_it_may(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, raw_client: RawClient
) -> None:
    limited = vhost.limited_url(read=".*")
    raw_client.declare("work")
    events: list[ConsumerEvent] = []
    consumer = make_transport(proxy.url_for(limited)).consume(
        ["work"], ConsumerOptions(prefetch=1), on_deliveries=lambda _: None, on_event=events.append
    )
    eventually(lambda: _count(events, ConsumerState.CONSUMING, 1))

    vhost.permit(limited, permitted=False)
    before = proxy.accepted
    proxy.cut()
    eventually(lambda: proxy.accepted > before, within=10)
    vhost.permit(limited, read=".*")

    eventually(lambda: _count(events, ConsumerState.CONSUMING, 2), within=20)
    assert not any(event.state is ConsumerState.FAILED for event in events)
    consumer.close(timeout=5)
