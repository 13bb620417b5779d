"""Publishing, by the contract in `amqp_tasks.transport`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Overflow, Queue, QueueType, Topology
from amqp_tasks.errors import (
    ClosedError,
    EncodeError,
    MessageTooLarge,
    PublishError,
    PublishNacked,
    UnroutableError,
)
from amqp_tasks.message import HeaderTemplate, OutgoingMessage
from amqp_tasks.transport import QueueStatus, Settlement, TopologyMode, Transport
from support import eventually
from support.conformance import Consume, Door, Message

DECLARE = TopologyMode.DECLARE


def depth(transport: Transport, queue_name: str) -> int:
    status = transport.queue_status(queue_name)
    assert status is not None
    return status.messages


def test_a_published_message_is_in_the_queue_when_publish_returns(
    transport: Transport, queue: str, message: Message
) -> None:
    transport.publish(message(b"x"))

    assert transport.queue_status(queue) == QueueStatus(name=queue, messages=1, consumers=0)


def test_messages_of_one_thread_arrive_in_order(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    bodies = [b"%d" % number for number in range(50)]
    for body in bodies:
        transport.publish(message(body))

    _, collector = consume(queue, prefetch=100)

    collector.wait_deliveries(50)
    assert collector.bodies == bodies


def test_everything_a_message_carries_arrives_unchanged(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    headers = {
        "text": "ß🐇",
        "number": 7,
        "big": 2**40,
        "negative": -(2**40),
        "real": 1.5,
        "truth": True,
        "nothing": None,
        "bytes": b"\xff\x00",
        "exact": Decimal("1.25"),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "list": [1, "two", [3]],
        "table": {"deep": {"er": None}},
    }
    sent = message(
        b"\x00\xffbody",
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        app_id="a",
        priority=0,
    )
    transport.publish(sent)

    _, collector = consume(queue)
    delivery = collector.wait_deliveries(1)[0]

    assert (delivery.body, delivery.queue_name, delivery.exchange, delivery.routing_key) == (
        sent.body,
        "q",
        "",
        "q",
    )
    assert delivery.redelivered is False
    assert delivery.properties == sent.properties


def test_a_template_and_own_headers_arrive_as_one_table(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    template = HeaderTemplate({"task": "t", "lang": "py"})
    transport.publish(message(template=template, headers={"id": "1", "lang": "other"}))
    transport.publish(message(template=template, headers={"id": "2"}))

    _, collector = consume(queue)
    received = [each.properties for each in collector.wait_deliveries(2)]

    assert [each.headers for each in received] == [
        {"task": "t", "lang": "other", "id": "1"},
        {"task": "t", "lang": "py", "id": "2"},
    ]
    assert [each.template for each in received] == [None, None]


def test_a_header_that_amqp_cannot_hold_is_the_callers_error(
    transport: Transport, queue: str, message: Message
) -> None:
    with pytest.raises(EncodeError):
        transport.publish(message(headers={"bad": object()}))

    assert depth(transport, queue) == 0


def test_an_unroutable_message_raises_and_names_itself(
    transport: Transport, queue: str, message: Message
) -> None:
    with pytest.raises(UnroutableError) as caught:
        transport.publish(message(routing_key="nowhere", correlation_id="id-1"))

    assert (caught.value.exchange, caught.value.routing_key, caught.value.message_id) == (
        "",
        "nowhere",
        "id-1",
    )


def test_an_unknown_exchange_is_unroutable_and_harms_no_neighbour(
    transport: Transport, queue: str, message: Message
) -> None:
    batch = [message(b"1"), message(exchange="missing"), message(b"2")]

    first, second, third = transport.publish_many(batch, timeout=20)

    assert (first, third) == (None, None)
    assert isinstance(second, UnroutableError)
    assert depth(transport, queue) >= 2


def test_a_message_that_need_not_arrive_may_be_dropped(
    transport: Transport, queue: str, message: Message
) -> None:
    transport.publish(message(routing_key="nowhere", mandatory=False))

    assert depth(transport, queue) == 0


def test_many_outcomes_keep_the_order_of_their_messages(
    transport: Transport, queue: str, message: Message
) -> None:
    batch = [message(b"%d" % n, "nowhere" if n in {3, 7} else "q", correlation_id=str(n)) for n in range(10)]

    outcomes = transport.publish_many(batch)

    assert [index for index, error in enumerate(outcomes) if error is not None] == [3, 7]
    assert [error.message_id for error in outcomes if isinstance(error, UnroutableError)] == ["3", "7"]
    assert depth(transport, queue) == 8


def test_many_from_a_generator_are_sent_in_order(
    door: Door, queue: str, message: Message, consume: Consume
) -> None:
    transport = door.open(task_publish_window=20)
    bodies = [b"%d" % number for number in range(300)]

    def lazily() -> Iterator[OutgoingMessage]:
        for body in bodies:
            yield message(body)

    outcomes = transport.publish_many(lazily())

    _, collector = consume(queue, prefetch=400)
    collector.wait_deliveries(300)
    assert list(outcomes) == [None] * 300
    assert collector.bodies == bodies


def test_no_messages_have_no_outcomes(transport: Transport) -> None:
    assert list(transport.publish_many([])) == []


def test_each_outcome_of_nowait_comes_exactly_once_and_on_the_io_thread(
    transport: Transport, queue: str, message: Message
) -> None:
    changed = threading.Condition()
    outcomes: dict[int, list[PublishError | None]] = {number: [] for number in range(20)}
    threads: set[int] = set()

    def noting(number: int, error: PublishError | None) -> None:
        with changed:
            outcomes[number].append(error)
            threads.add(threading.get_ident())
            changed.notify()

    for number in range(20):
        made = message(routing_key="nowhere" if number == 5 else queue)
        transport.publish_nowait(made, lambda error, number=number: noting(number, error))  # type: ignore[misc]  # a default argument binds the number

    with changed:
        assert changed.wait_for(lambda: all(outcomes.values()), 10)
    transport.publish(message())
    assert {len(each) for each in outcomes.values()} == {1}
    assert [number for number, each in outcomes.items() if each != [None]] == [5]
    assert isinstance(outcomes[5][0], UnroutableError)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_raising_outcome_callback_harms_nothing(transport: Transport, queue: str, message: Message) -> None:
    called = threading.Event()

    def raising(error: PublishError | None) -> None:
        called.set()
        raise RuntimeError("a fault of the callback")

    transport.publish_nowait(message(), raising)

    assert called.wait(10)
    transport.publish(message())
    assert depth(transport, queue) == 2


def test_waiting_on_the_io_thread_is_refused(transport: Transport, queue: str, message: Message) -> None:
    raised: list[BaseException] = []
    done = threading.Event()

    def publish_again(error: PublishError | None) -> None:
        try:
            transport.publish(message())
        except BaseException as exc:
            raised.append(exc)
        done.set()

    transport.publish_nowait(message(), publish_again)

    assert done.wait(10)
    assert [type(error) for error in raised] == [RuntimeError]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(door: Door, message: Message) -> None:
    transport = door.open(max_message_bytes=1000, warn_message_bytes=1000)
    transport.ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)

    transport.publish(message(bytes(1000)))
    with pytest.raises(MessageTooLarge, match="1001"):
        transport.publish(message(bytes(1001)))
    outcomes = transport.publish_many([message(b"1"), message(bytes(1001)), message(b"2")])

    assert [type(error) for error in outcomes] == [type(None), MessageTooLarge, type(None)]
    assert depth(transport, "q") == 3


def test_a_full_queue_that_refuses_is_a_nack(transport: Transport, message: Message) -> None:
    full = Queue("q", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    transport.ensure_topology(Topology(queues=(full,)), mode=DECLARE)
    taken = 0

    # A quorum queue may let a few more in before it refuses.
    def refused() -> None:
        nonlocal taken
        transport.publish(message())
        taken += 1
        raise AssertionError("taken")

    with pytest.raises(PublishNacked):
        eventually(refused, within=10)

    assert taken >= 1
    assert transport.statistics().nacked == 1


@pytest.mark.parametrize("kind", [QueueType.CLASSIC, QueueType.QUORUM])
def test_a_large_body_arrives_whole(
    transport: Transport, message: Message, consume: Consume, kind: QueueType
) -> None:
    body = bytes(range(256)) * 4096 * 3
    transport.ensure_topology(Topology(queues=(Queue("q", type=kind),)), mode=DECLARE)
    transport.publish(message(body))

    _, collector = consume("q")

    assert collector.wait_deliveries(1)[0].body == body


def test_a_message_goes_to_every_queue_that_is_bound(
    transport: Transport, message: Message, consume: Consume
) -> None:
    topology = Topology(
        exchanges=(Exchange("t", ExchangeType.TOPIC), Exchange("h", ExchangeType.HEADERS)),
        queues=(Queue("q"), Queue("r")),
        bindings=(
            Binding("t", "q", routing_key="a.*"),
            Binding("t", "r", routing_key="#"),
            Binding("h", "q", arguments={"x-match": "all", "kind": "x"}),
        ),
    )
    transport.ensure_topology(topology, mode=DECLARE)

    transport.publish(message(b"both", "a.b", exchange="t"))
    transport.publish(message(b"one", "c", exchange="t"))
    transport.publish(message(b"headers", "", exchange="h", headers={"kind": "x", "more": 1}))
    with pytest.raises(UnroutableError):
        transport.publish(message(b"none", "", exchange="h", headers={"kind": "y"}))

    _, collector = consume("q", "r")
    collector.wait_deliveries(4)
    came = sorted(
        (delivery.queue_name, delivery.body, delivery.exchange) for delivery in collector.deliveries
    )
    assert came == [("q", b"both", "t"), ("q", b"headers", "h"), ("r", b"both", "t"), ("r", b"one", "t")]


def test_a_declared_queue_that_is_gone_is_declared_again_for_a_returned_message(
    transport: Transport, queue: str, message: Message
) -> None:
    transport.delete_queue(queue)

    transport.publish(message(b"x"))

    assert depth(transport, queue) == 1
    assert transport.statistics().resent == 1


def test_sixteen_threads_publish_through_one_door(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    start = threading.Barrier(16, timeout=10)

    def publish(thread: int) -> None:
        start.wait()
        for number in range(25):
            transport.publish(message(b"%d:%d" % (thread, number)))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(publish, range(16)))

    _, collector = consume(queue, prefetch=500)
    collector.wait_deliveries(400)
    for thread in range(16):
        mine = [body for body in collector.bodies if body.startswith(b"%d:" % thread)]
        assert mine == [b"%d:%d" % (thread, number) for number in range(25)]


def test_statistics_count_what_happened(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(message())
    with pytest.raises(UnroutableError):
        transport.publish(message(routing_key="nowhere"))
    consumer, collector = consume(queue)
    consumer.settle(collector.wait_deliveries(1)[0], Settlement.ACK)

    counted = transport.statistics()

    assert (counted.confirmed, counted.returned, counted.nacked, counted.delivered) == (1, 1, 0, 1)
    assert counted.published >= 2
    assert counted.connects >= 2


def test_a_closed_transport_refuses_everything(transport: Transport, queue: str, message: Message) -> None:
    transport.close()
    transport.close()

    for use in (
        lambda: transport.publish(message()),
        lambda: transport.publish_many([message()]),
        lambda: transport.publish_nowait(message(), lambda error: None),
        lambda: transport.queue_status(queue),
        lambda: transport.open(timeout=1),
    ):
        with pytest.raises(ClosedError):
            use()
    assert transport.statistics() is not None


def test_closing_waits_for_what_was_handed_over(door: Door, queue: str, message: Message) -> None:
    transport = door.open()
    outcomes: list[PublishError | None] = []
    for _ in range(100):
        transport.publish_nowait(message(), outcomes.append)

    transport.close(timeout=10)

    assert outcomes == [None] * 100
    assert depth(door.open(), queue) == 100


def test_a_transport_that_was_never_used_closes(door: Door) -> None:
    door.open().close()


def test_a_queue_that_was_not_to_last_is_not_declared_again_when_it_is_gone(
    transport: Transport, message: Message
) -> None:
    transport.ensure_topology(Topology(queues=(Queue("passing"),)), mode=DECLARE, is_lasting=False)
    transport.publish(message(routing_key="passing"))
    transport.delete_queue("passing")
    with pytest.raises(UnroutableError):
        transport.publish(message(routing_key="passing"))
    assert transport.queue_status("passing") is None


def test_queues_that_are_not_to_last_are_declared_together_and_may_be_again(transport: Transport) -> None:
    passing = Topology(queues=(Queue("passing"), Queue("by")))

    for _ in range(2):
        transport.ensure_topology(passing, mode=DECLARE, is_lasting=False)

    assert [transport.queue_status(queue.name) is None for queue in passing.queues] == [False, False]
