"""A broker that loses a consumer and tells nobody: it is asked, and what is lost is consumed anew. Row U002."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import Consumer, ConsumerOptions, ConsumerState, Settlement
from amqp_tasks.transport.rabbitmq import RabbitTransport, _roll_call
from support import eventually
from support.collector import Collector
from support.scripted_broker import Fault, ScriptedBroker

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

LOOKS = 4
"""Calls after which what was to happen has happened."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_roll_call, "FIRST_AFTER", 0.05)
    monkeypatch.setattr(_roll_call, "AGAIN_AFTER", 0.05)
    monkeypatch.setattr(_roll_call, "EVERY", 0.1)


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as broker:
        broker.put("work")
        broker.put("other")
        yield broker


@pytest.fixture
def transport(scripted: ScriptedBroker, make_transport: Make) -> RabbitTransport:
    return make_transport(scripted.url)


def consume(
    transport: RabbitTransport,
    *,
    queues: Sequence[str] = ("work",),
    prefetch: int = 3,
    is_busy: bool = False,
    declare: Topology | None = None,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Consumer, Collector]:
    """One that acks at once unless it is busy."""
    collector = Collector()
    collector.settle_at_once = None if is_busy else Settlement.ACK
    options = ConsumerOptions(prefetch=prefetch, arguments=arguments or {})
    collector.consumer = transport.consume(
        queues,
        options,
        on_deliveries=collector.on_deliveries,
        on_event=collector.on_event,
        declare=declare,
    )
    return collector.consumer, collector


def told(collector: Collector) -> list[str]:
    return [event.state.value for event in collector.events]


def wait_for_calls(broker: ScriptedBroker, count: int = LOOKS) -> None:
    """Passive declares are the only ones once all is consumed."""
    before = broker.seen["Queue.Declare"]
    eventually(lambda: broker.seen["Queue.Declare"] >= before + count)


def test_a_lost_consumer_is_made_anew_on_the_same_channel(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message
) -> None:
    consumer, collector = consume(transport, queues=("work", "other"))
    eventually(lambda: consumer.queues.consumed == ("work", "other"))

    scripted.lose_consumers("work")
    transport.publish(message("work", "1"))

    assert collector.wait_deliveries(1)[0].body == b"1"
    eventually(lambda: told(collector) == ["consuming", "cancelled", "consuming"])
    assert (collector.events[1].queue_name, collector.events[1].is_queue_there) == ("work", True)
    assert [name for name, _ in scripted.consumes] == ["work", "other", "work"]
    assert collector.deliveries[0].epoch == collector.events[0].epoch
    assert consumer.queues.missing == ()


def test_it_is_missing_until_it_is_there_again(
    scripted: ScriptedBroker, make_transport: Make, message: Message
) -> None:
    transport = make_transport(scripted.url, connection_timeout=0.5)
    consumer, collector = consume(transport)
    eventually(lambda: consumer.queues.consumed == ("work",))

    scripted.misbehave("Basic.Consume", Fault.NEVER)
    scripted.lose_consumers("work")
    transport.publish(message("work", "1"))

    eventually(lambda: consumer.queues.missing == ("work",))
    scripted.behave()
    collector.wait_deliveries(1, within=30)
    eventually(lambda: consumer.queues.missing == ())


def test_one_that_is_lost_again_costs_the_connection_and_then_the_count_is_not_believed(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.counts_consumers = False
    for number in range(3):
        transport.publish(message("work", number))
    _, collector = consume(transport, prefetch=1, is_busy=True)

    eventually(lambda: any(getattr(each, "action", "") == "not_counted" for each in caplog.records))

    assert told(collector) == ["consuming", "cancelled", "consuming", "lost", "consuming"]
    assert len(scripted.consumes) == 3


def test_nobody_and_nothing_is_no_reason_for_a_doubt(
    scripted: ScriptedBroker, transport: RabbitTransport
) -> None:
    scripted.counts_consumers = False
    _, collector = consume(transport)
    collector.wait_event(ConsumerState.CONSUMING)

    wait_for_calls(scripted)

    assert told(collector) == ["consuming"]


def test_what_is_told_once_only_is_not_believed(
    scripted: ScriptedBroker,
    transport: RabbitTransport,
    message: Message,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_roll_call, "FIRST_AFTER", 0.5)
    monkeypatch.setattr(_roll_call, "AGAIN_AFTER", 1.0)
    for number in range(3):
        transport.publish(message("work", number))
    _, collector = consume(transport, prefetch=1, is_busy=True)
    collector.wait_deliveries(1)

    scripted.counts_consumers = False
    wait_for_calls(scripted, 1)
    scripted.counts_consumers = True
    wait_for_calls(scripted)

    assert told(collector) == ["consuming"]


def test_a_queue_that_is_gone_without_a_word_is_declared_and_consumed_anew(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message
) -> None:
    consumer, collector = consume(transport, declare=Topology(queues=(Queue("work"),)))
    eventually(lambda: consumer.queues.consumed == ("work",))

    scripted.drop_queue("work")

    eventually(lambda: told(collector) == ["consuming", "cancelled", "consuming"])
    assert not collector.events[1].is_queue_there
    transport.publish(message("work", "1"))
    assert collector.wait_deliveries(1)[0].body == b"1"


def test_what_is_held_back_counts_as_consumed_also_on_a_channel_that_came_meanwhile(
    scripted: ScriptedBroker, transport: RabbitTransport
) -> None:
    consumer, collector = consume(transport, queues=("work", "other"))
    eventually(lambda: consumer.queues.consumed == ("work", "other"))
    consumer.pause()

    scripted.reset_connections()
    collector.wait_event(ConsumerState.LOST)
    eventually(lambda: consumer.queues.consumed == ("work", "other"))

    assert consumer.queues.missing == ()
    assert not scripted_consumers(scripted)
    consumer.resume()
    eventually(lambda: scripted_consumers(scripted))


def test_the_consumer_of_a_stream_is_not_counted(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message
) -> None:
    scripted.counts_consumers = False
    collector = Collector()
    collector.settle_at_once = None
    options = ConsumerOptions(prefetch=1, streams=("work",))
    collector.consumer = transport.consume(
        ("work", "other"), options, on_deliveries=collector.on_deliveries, on_event=collector.on_event
    )
    for number in range(3):
        transport.publish(message("work", number))
    collector.wait_deliveries(1)

    wait_for_calls(scripted)

    assert told(collector) == ["consuming"]


def test_a_consumer_that_is_paused_is_not_missed(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message
) -> None:
    consumer, collector = consume(transport, queues=("work", "other"))
    eventually(lambda: consumer.queues.consumed == ("work", "other"))

    consumer.pause()
    eventually(lambda: not scripted_consumers(scripted))
    transport.publish(message("work", "1"))
    consumer.pause_queues(("work",))
    consumer.resume()
    wait_for_calls(scripted)

    assert "cancelled" not in told(collector)
    assert consumer.queues.consumed == ("other",)
    assert consumer.queues.missing == ()


def test_a_stream_is_not_asked_for(
    scripted: ScriptedBroker, transport: RabbitTransport, message: Message
) -> None:
    scripted.counts_consumers = False
    scripted.put("stream")
    declared = Topology(queues=(Queue("other", type=QueueType.STREAM),))
    for name in ("stream", "other", "work"):
        for number in range(3):
            transport.publish(message(name, number))
    _, collector = consume(
        transport,
        queues=("stream", "other", "work"),
        prefetch=1,
        is_busy=True,
        declare=declared,
        arguments={"stream": {"x-stream-offset": "first"}},
    )

    eventually(lambda: "cancelled" in told(collector))

    assert {event.queue_name for event in collector.events if event.queue_name} == {"work"}


def scripted_consumers(broker: ScriptedBroker) -> bool:
    queues = [broker.queues.queue(name) for name in ("work", "other")]
    return any(queue.consumers for queue in queues if queue is not None)
