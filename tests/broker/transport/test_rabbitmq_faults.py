"""Publishing and consuming while the broker or the network misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import NoneType

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.errors import BrokerBlocked, BrokerOperationError, NotSent, PublishError, SendUnknown
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import (
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    Settlement,
    TopologyMode,
)
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import PrivateNode, RawClient, TcpProxy, Vhost, eventually

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

PRECONDITION_FAILED = 406
WORK = Topology(queues=(Queue("work"),))


def declared(transport: RabbitTransport) -> RabbitTransport:
    transport.ensure_topology(WORK, mode=TopologyMode.DECLARE, timeout=30)
    return transport


class Producer(threading.Thread):
    """Publishes one message after the other until told to stop; remembers what was accepted and what refused."""

    def __init__(self, transport: RabbitTransport, make: Message) -> None:
        super().__init__(name="producer")
        self._transport, self._make = transport, make
        self.accepted: list[str] = []
        self.refused: list[PublishError] = []
        self.slowest = 0.0
        self._is_over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._is_over.is_set():
            name, began = f"m{number}", time.monotonic()
            try:
                self._transport.publish(self._make("work", name))
                self.accepted.append(name)
            except PublishError as exc:
                self.refused.append(exc)
            self.slowest = max(self.slowest, time.monotonic() - began)
            number += 1

    def end(self) -> None:
        self._is_over.set()
        self.join(110)


def stored(client: RawClient) -> set[str]:
    return {got.body.decode() for got in client.drain("work")}


@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("kind", [QueueType.QUORUM, QueueType.CLASSIC])
def test_promises_4_and_11_a_restart_of_the_broker_is_invisible_to_the_producer(
    how: str, kind: QueueType, private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    # On a busy machine a restart takes longer than the usual deadline.
    transport = make_transport(private_node.url, publish_timeout=100.0)
    topology = Topology(queues=(Queue("work", type=kind),))
    transport.ensure_topology(topology, mode=TopologyMode.DECLARE, timeout=30)
    producer = Producer(transport, message)
    producer.start()
    eventually(lambda: _at_least(producer.accepted, 50))

    if how == "kill":
        # The virtual host is new, and the broker writes its own tables to disk only every other second.
        private_node.ctl("eval", "mnesia:sync_log().")
        private_node.kill()
        private_node.start()
    else:
        private_node.restart()
    before = len(producer.accepted)
    began = time.monotonic()
    eventually(lambda: _at_least([*producer.accepted, *producer.refused], before + 50), within=20)
    pause = time.monotonic() - began
    producer.end()

    assert not producer.refused
    assert pause < 10, "promise 11: back to work within seconds of the broker's return"
    with RawClient(private_node.url) as client:
        assert set(producer.accepted) <= stored(client)


def _refusal(transport: RabbitTransport, message: OutgoingMessage) -> PublishError | None:
    try:
        transport.publish(message, timeout=0.5)
    except PublishError as exc:
        return exc
    return None


def _at_least(items: Sequence[object], count: int) -> None:
    assert len(items) >= count


def test_promise_3_a_paused_broker_does_not_hold_publish_beyond_its_deadline(
    private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    transport = declared(make_transport(private_node.url))
    private_node.pause()
    began = time.monotonic()

    with pytest.raises(SendUnknown):
        transport.publish(message("work", "lost?"), timeout=1.0)
    took = time.monotonic() - began
    private_node.resume()
    transport.publish(message("work", "after"), timeout=30)

    assert 0.9 < took < 2.5
    with RawClient(private_node.url) as client:
        assert "after" in stored(client)


def test_promise_3_a_memory_alarm_is_told_with_the_brokers_reason_and_nothing_more_is_written(
    private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    """Row U032."""
    transport = declared(make_transport(private_node.url))
    transport.publish(message("work", "before"))
    private_node.raise_memory_alarm()

    # The alarm is told to a publisher once it publishes: the first may still be on its way, or come through.
    refusals: list[PublishError | None] = []

    def is_blocked() -> bool:
        refusals.append(_refusal(transport, message("work", f"during-{len(refusals)}")))
        return isinstance(refusals[-1], BrokerBlocked)

    eventually(is_blocked, within=10)
    assert {type(refusal) for refusal in refusals} <= {NoneType, SendUnknown, BrokerBlocked}
    blocked = refusals[-1]
    assert isinstance(blocked, BrokerBlocked)
    assert blocked.reason
    outcomes: list[PublishError | None] = []
    transport.publish_nowait(message("work", "waits"), outcomes.append, timeout=30)
    private_node.clear_memory_alarm()

    eventually(lambda: _at_least(outcomes, 1), within=20)
    assert outcomes == [None]
    with RawClient(private_node.url) as client:
        assert {"before", "waits"} <= stored(client)


def test_promise_2_a_broker_that_is_down_for_longer_than_the_deadline_gives_not_sent(
    private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    transport = declared(make_transport(private_node.url))
    private_node.stop()

    with pytest.raises(NotSent):
        transport.publish(message("work", "refused"), timeout=1.0)
    private_node.start()
    transport.publish(message("work", "after"), timeout=30)

    with RawClient(private_node.url) as client:
        assert stored(client) == {"after"}


def test_promise_12_a_half_open_connection_is_noticed_and_its_messages_sent_again(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    transport = declared(make_transport(proxy.url_for(), heartbeat=1))
    transport.publish(message("work", "before"))
    proxy.half_open()
    outcomes: list[PublishError | None] = []

    transport.publish_nowait(message("work", "during"), outcomes.append, timeout=30)
    eventually(lambda: _at_least([proxy] * proxy.accepted, 2), within=15)
    proxy.resume()

    eventually(lambda: _at_least(outcomes, 1), within=20)
    assert outcomes == [None]
    assert {"before", "during"} == stored(raw_client)


def test_cuts_while_publishing_in_bulk_lose_nothing_and_refuse_nothing(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    transport = declared(make_transport(proxy.url_for()))
    proxy.throttle(700_000)
    stop = threading.Event()

    def cut_now_and_then() -> None:
        for _ in range(4):
            if stop.wait(0.25):
                return
            proxy.cut()

    cutter = threading.Thread(target=cut_now_and_then)
    cutter.start()
    outcomes = transport.publish_many(
        message("work", f"{number}", body=str(number).encode() * 20) for number in range(4000)
    )
    stop.set()
    cutter.join()

    assert set(outcomes) == {None}
    assert transport.statistics().connects > 1
    assert {got.properties.correlation_id for got in raw_client.drain("work")} == {
        str(n) for n in range(4000)
    }


def test_a_connection_that_is_cut_again_and_again_does_not_resend_a_full_window_each_time(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    window, cuts = 1000, 5
    transport = declared(make_transport(proxy.url_for(), publish_window=window))
    proxy.delay(0.05)
    outcomes: list[PublishError | None] = []
    for number in range(2 * window):
        transport.publish_nowait(message("work", number), outcomes.append, timeout=60)
    for _ in range(cuts):
        written = transport.statistics().published + transport.statistics().resent
        eventually(lambda written=written: _writes_beyond(transport, written), within=10)  # type: ignore[misc]
        proxy.cut()

    eventually(lambda: _at_least(outcomes, 2 * window), within=30)
    assert set(outcomes) == {None}
    # Without a slow start each of the cuts, all in the first round trip, has the whole window sent again.
    assert window <= transport.statistics().resent < 2 * window
    assert len({got.body for got in raw_client.drain("work")}) == 2 * window


def _writes_beyond(transport: RabbitTransport, written: int) -> None:
    statistics = transport.statistics()
    assert statistics.published + statistics.resent > written


def test_closing_a_consumer_whose_connection_is_lost_meanwhile_does_not_wait_for_another(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message
) -> None:
    transport = declared(make_transport(proxy.url_for()))
    events: list[ConsumerEvent] = []
    consumer = transport.consume(
        ["work"], ConsumerOptions(prefetch=1), on_deliveries=lambda _: None, on_event=events.append
    )
    eventually(lambda: _at_least(events, 1))
    proxy.half_open()
    closer = threading.Thread(target=lambda: consumer.close(timeout=15))
    closer.start()
    transport.publish_nowait(
        message("work"), lambda _: None
    )  # the I/O thread has begun to close when it reads this
    eventually(lambda: _writes_beyond(transport, 0))

    proxy.refuse()
    proxy.cut()
    closer.join(5)

    assert not closer.is_alive()
    assert [event.state for event in events] == [ConsumerState.CONSUMING, ConsumerState.CLOSED]


def test_promise_6_deliveries_survive_cuts_and_are_settled_once(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    direct, through = make_transport(vhost.url), make_transport(proxy.url_for())
    declared(direct).publish_many(message("work", number) for number in range(3000))
    seen: list[str] = []
    events: list[ConsumerEvent] = []

    def on_deliveries(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            seen.append(delivery.body.decode())
            consumer.settle(delivery, Settlement.ACK)

    proxy.throttle(300_000)
    consumer = through.consume(
        ["work"], ConsumerOptions(prefetch=50), on_deliveries=on_deliveries, on_event=events.append
    )
    for share in (300, 900, 1800):
        eventually(lambda share=share: _at_least(seen, share), within=20)  # type: ignore[misc]
        proxy.cut()
    eventually(lambda: _at_least(sorted(set(seen)), 3000), within=30)
    consumer.close(timeout=5)

    assert raw_client.depth("work") == 0
    assert len({event.epoch for event in events if event.state == "consuming"}) >= 3


KILL_QUEUE = (
    'K = fun K(0) -> ok; K(N) -> {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)),'
    " exit(amqqueue:get_pid(Q), kill), timer:sleep(60), K(N - 1) end, K(12)."
)


@pytest.mark.timeout(120)
def test_a_queue_that_the_broker_cannot_serve_now_does_not_end_the_consumer_nor_hold_up_the_others(
    private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    kinds = Topology(queues=(Queue("broken", type=QueueType.CLASSIC), Queue("fine", type=QueueType.CLASSIC)))
    transport = make_transport(private_node.url)
    transport.ensure_topology(kinds, mode=TopologyMode.DECLARE, timeout=30)
    # Killed more often than its supervisor puts up with, as a queue is whose node is gone: 404 to every declare.
    private_node.ctl("eval", KILL_QUEUE.format(vhost=private_node.vhost.name, queue="broken"))
    events: list[ConsumerEvent] = []
    seen: list[Delivery] = []
    consumer = transport.consume(
        ["broken", "fine"],
        ConsumerOptions(prefetch=10),
        on_deliveries=seen.extend,
        on_event=events.append,
        declare=kinds,
    )
    transport.publish(message("fine"))

    eventually(lambda: _at_least(seen, 1), within=25)
    private_node.restart()
    eventually(lambda: _state_seen(events, ConsumerState.CONSUMING), within=30)
    consumer.close(timeout=5)

    assert events[0].queue_name == "broken"
    assert ConsumerState.FAILED not in {event.state for event in events}


# What starts a stream's replicas stands still until there is a queue `go`, at most half a minute.
HOLD_STREAMS = (
    'sys:suspend(osiris_server_sup), Go = rabbit_misc:r(<<"{vhost}">>, queue, <<"go">>), spawn(fun() ->'
    " W = fun W(0) -> ok; W(N) -> rabbit_amqqueue:exists(Go) orelse begin timer:sleep(50), W(N - 1) end end,"
    " W(600), sys:resume(osiris_server_sup) end)."
)


@contextmanager
def held_stream(node: PrivateNode, transport: RabbitTransport) -> Iterator[None]:
    """Meanwhile the stream `log` is known and nowhere to be read, as any is for a moment after its declaration."""
    log = Topology(queues=(Queue("log", type=QueueType.STREAM),))
    node.ctl("eval", HOLD_STREAMS.format(vhost=node.vhost.name))
    with ThreadPoolExecutor(1) as pool, RawClient(node.url) as client:
        declaring = pool.submit(transport.ensure_topology, log, mode=TopologyMode.DECLARE, timeout=50)
        try:
            yield
        finally:
            client.declare("go")
            declaring.result(30)


def read_stream(transport: RabbitTransport) -> list[ConsumerEvent]:
    events: list[ConsumerEvent] = []
    transport.consume(
        ["log"],
        ConsumerOptions(prefetch=10, arguments={"log": {"x-stream-offset": "first"}}),
        on_deliveries=lambda _deliveries: None,
        on_event=events.append,
    )
    return events


def test_a_stream_that_does_not_run_yet_is_consumed_as_soon_as_it_does(
    private_node: PrivateNode, make_transport: Make
) -> None:
    reader, other = make_transport(private_node.url), make_transport(private_node.url)
    with held_stream(private_node, other):
        events = read_stream(reader)
        eventually(lambda: _refused_with(events, PRECONDITION_FAILED), within=10)

    eventually(lambda: _state_seen(events, ConsumerState.CONSUMING), within=10)
    assert ConsumerState.FAILED not in {event.state for event in events}


def test_a_stream_that_does_not_run_here_in_time_is_final(
    private_node: PrivateNode, make_transport: Make
) -> None:
    reader = make_transport(private_node.url, connection_timeout=1.0)
    with held_stream(private_node, make_transport(private_node.url)):
        events = read_stream(reader)
        eventually(lambda: _state_seen(events, ConsumerState.FAILED), within=20)

    assert [event.state for event in events[-2:]] == [ConsumerState.LOST, ConsumerState.FAILED]


def _refused_with(events: Sequence[ConsumerEvent], code: int) -> None:
    refusals = [event.error for event in events if isinstance(event.error, BrokerOperationError)]
    assert code in {refusal.reply_code for refusal in refusals}, events


def _state_seen(events: Sequence[ConsumerEvent], state: ConsumerState) -> None:
    assert state in {event.state for event in events}


def test_a_delivery_held_beyond_the_consumer_timeout_comes_again_on_a_new_channel(
    private_node: PrivateNode, make_transport: Make, message: Message
) -> None:
    set_limits = "[application:set_env(rabbit, Key, Value) || {Key, Value} <- [{consumer_timeout, %s}, {channel_tick_interval, %s}]]."
    private_node.ctl("eval", set_limits % ("1000", "500"))
    transport = declared(make_transport(private_node.url))
    seen: list[Delivery] = []
    events: list[ConsumerEvent] = []

    def came(deliveries: Sequence[Delivery]) -> None:
        seen.extend(deliveries)
        for delivery in deliveries:
            if delivery.redelivered:  # at once, or it could be held too long in its turn
                consumer.settle(delivery, Settlement.ACK)

    consumer = transport.consume(
        ["work"], ConsumerOptions(prefetch=1), on_deliveries=came, on_event=events.append
    )
    try:
        transport.publish(message("work", "long"))

        eventually(lambda: _at_least(seen, 2), within=15)
    finally:
        private_node.ctl("eval", set_limits % ("1800000", "60000"))
    consumer.settle(seen[0], Settlement.ACK)
    consumer.close(timeout=5)

    assert seen[1].epoch > seen[0].epoch
    assert seen[1].redelivered
    assert ConsumerState.LOST in {event.state for event in events}
    assert ConsumerState.FAILED not in {event.state for event in events}
    with RawClient(private_node.url) as client:
        assert stored(client) == set()
