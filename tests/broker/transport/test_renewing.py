"""A queue that is deleted and declared again in the same moment: old brokers tell nobody, and must not hang its consumers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest

from amqp_routing import Queue, Topology
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import Consumer, ConsumerEvent, ConsumerOptions, Delivery, Settlement, TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport, _consumer, _renewal
from amqp_tasks.transport.rabbitmq._consumer import RabbitConsumer
from support import RawClient, Vhost, eventually
from support.scripted_broker import ScriptedBroker

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

WORK = Topology(queues=(Queue("work"),))
SOON = 0.3
"""Seconds after which a channel is renewed."""


class Worker:
    """Acks what it gets, while it may."""

    def __init__(
        self, transport: RabbitTransport, *, prefetch: int = 3, queues: Sequence[str] = ("work",)
    ) -> None:
        self.bodies: list[str] = []
        self.times: list[float] = []
        self.events: list[ConsumerEvent] = []
        self.held: list[Delivery] = []
        self.is_busy = False
        self._has_consumer = threading.Event()
        self.consumer: Consumer = transport.consume(
            queues,
            ConsumerOptions(prefetch=prefetch),
            on_deliveries=self._take,
            on_event=self.events.append,
        )
        self._has_consumer.set()

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        assert self._has_consumer.wait(10)
        self.bodies += [delivery.body.decode() for delivery in deliveries]
        self.times.append(time.monotonic())
        self.held += deliveries
        if not self.is_busy:
            self.finish()

    @property
    def epoch(self) -> int:
        """Grows with each channel."""
        assert isinstance(self.consumer, RabbitConsumer)
        return self.consumer._channel.epoch

    def finish(self) -> None:
        held, self.held = self.held, []
        for delivery in held:
            self.consumer.settle(delivery, Settlement.ACK)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_renewal, "RENEW_AFTER", SOON)
    monkeypatch.setattr(_consumer, "_DRAIN_LOOKS", 20)


@pytest.fixture
def transport(vhost: Vhost, make_transport: Make) -> RabbitTransport:
    made = make_transport(vhost.url)
    made.ensure_topology(WORK, mode=TopologyMode.DECLARE)
    return made


@pytest.mark.parametrize("has_worked", [True, False])
def test_promise_06_a_queue_that_is_replaced_at_once_is_consumed_on(
    transport: RabbitTransport, raw_client: RawClient, message: Message, has_worked: bool
) -> None:
    worker = Worker(transport)
    eventually(lambda: raw_client.consumers("work") == 1)
    before = ["before"] if has_worked else []
    for body in before:
        transport.publish(message("work", body))
    eventually(lambda: worker.bodies == before)

    raw_client.delete("work")
    transport.ensure_topology(WORK, mode=TopologyMode.DECLARE)
    sent = [f"m{number}" for number in range(10)]
    for body in sent:
        transport.publish(message("work", body))

    eventually(lambda: sorted(worker.bodies) == sorted([*before, *sent]), within=10)
    eventually(lambda: raw_client.depth("work") == 0)


@contextmanager
def kept_busy(worker: Worker, transport: RabbitTransport, message: OutgoingMessage) -> Iterator[None]:
    """There is always something to do, and nearly always something open."""
    worker.is_busy = True
    is_over = threading.Event()

    def publish() -> None:
        while not is_over.is_set():
            transport.publish(message)

    def finish() -> None:
        while not is_over.wait(0.02):
            worker.finish()

    threads = [threading.Thread(target=work, name=work.__name__) for work in (publish, finish)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(10)


def test_promise_06_a_queue_that_is_replaced_at_once_is_consumed_on_by_one_that_others_keep_busy(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    transport.ensure_topology(Topology(queues=(Queue("busy"),)), mode=TopologyMode.DECLARE)
    worker = Worker(transport, queues=("work", "busy"))
    sent = [f"m{number}" for number in range(10)]

    def own() -> list[str]:
        return sorted(body for body in worker.bodies if body != "busy")

    with kept_busy(worker, transport, message("busy", "busy")):
        transport.publish(message("work", "before"))
        eventually(lambda: own() == ["before"])
        raw_client.delete("work")
        transport.ensure_topology(WORK, mode=TopologyMode.DECLARE)
        for body in sent:
            transport.publish(message("work", body))

        eventually(lambda: own() == sorted(["before", *sent]), within=10)


@pytest.fixture
def old_broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker(version="3.10.8") as broker:
        broker.put("work", b"1")
        yield broker


def test_an_idle_channel_is_renewed_and_nobody_is_told(
    old_broker: ScriptedBroker, make_transport: Make
) -> None:
    worker = Worker(make_transport(old_broker.url))
    eventually(lambda: len(old_broker.consumes) >= 4)

    assert worker.bodies == ["1"]
    assert [event.state.value for event in worker.events] == ["consuming"]


def test_a_channel_on_which_something_is_open_stays(
    old_broker: ScriptedBroker, make_transport: Make, message: Message
) -> None:
    transport = make_transport(old_broker.url)
    worker = Worker(transport)
    eventually(lambda: worker.bodies == ["1"])
    worker.is_busy = True
    transport.publish(message("work", "2"))
    eventually(lambda: worker.bodies == ["1", "2"])
    epoch, asked = worker.epoch, len(old_broker.consumes)

    # It tried, and consumes on.
    eventually(lambda: len(old_broker.consumes) > asked)
    transport.publish(message("work", "3"))
    eventually(lambda: worker.bodies == ["1", "2", "3"])
    assert worker.epoch == epoch

    worker.finish()
    eventually(lambda: worker.epoch > epoch)
    assert worker.bodies == ["1", "2", "3"]


def test_the_channel_of_a_paused_consumer_is_renewed_when_it_goes_on_and_has_ended_what_is_open(
    old_broker: ScriptedBroker, make_transport: Make, message: Message
) -> None:
    """As a worker process does whose only slot is busy for long."""
    transport = make_transport(old_broker.url)
    worker = Worker(transport)
    eventually(lambda: worker.bodies == ["1"])
    worker.is_busy = True
    transport.publish(message("work", "2"))
    eventually(lambda: worker.bodies == ["1", "2"])
    worker.consumer.pause()
    assert isinstance(worker.consumer, RabbitConsumer)
    eventually(lambda: worker.consumer._is_renewal_due)  # type: ignore[attr-defined]
    epoch = worker.epoch

    worker.consumer.resume()
    worker.finish()

    eventually(lambda: worker.epoch > epoch)
    transport.publish(message("work", "3"))
    eventually(lambda: worker.bodies == ["1", "2", "3"])


def test_a_channel_all_of_whose_queues_deliver_stays(
    old_broker: ScriptedBroker, make_transport: Make, message: Message
) -> None:
    transport = make_transport(old_broker.url)
    worker = Worker(transport)
    with kept_busy(worker, transport, message("work", "busy")):
        eventually(lambda: "busy" in worker.bodies)

        def stays_while_it_delivers() -> bool:
            """Asserted of a second in which it delivered all the time: a busy machine may let it stand still for too long."""
            begun, before = len(worker.times), (worker.epoch, len(old_broker.consumes))
            _pass_a_second(transport)
            after, times = (worker.epoch, len(old_broker.consumes)), worker.times[begun - 1 :]
            if max(later - sooner for sooner, later in pairwise([*times, time.monotonic()])) >= SOON / 2:
                return False
            assert after == before
            return True

        eventually(stays_while_it_delivers, within=10)


def test_a_broker_that_cancels_such_consumers_keeps_their_channels(make_transport: Make) -> None:
    with ScriptedBroker(version="4.0.5") as broker:
        broker.put("work")
        transport = make_transport(broker.url)
        Worker(transport)
        eventually(lambda: len(broker.consumes) == 1)
        _pass_a_second(transport)
        assert len(broker.consumes) == 1


def _pass_a_second(transport: RabbitTransport) -> None:
    """Of its own clock, in which it would look several times."""
    is_over = threading.Event()
    core = transport._started()
    core.loop.put(lambda _none: core.loop.call_guarded(1.0, is_over.set))
    assert is_over.wait(10)
