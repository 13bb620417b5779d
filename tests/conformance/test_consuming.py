"""Consuming, by the contract in `amqp_tasks.transport`."""

from __future__ import annotations

import threading

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.errors import BrokerOperationError
from amqp_tasks.transport import ConsumedQueues, ConsumerState, Settlement, TopologyMode, Transport
from support import eventually
from support.conformance import Consume, Door, Message

DECLARE = TopologyMode.DECLARE
ACK, REQUEUE, RETURN, DROP = Settlement.ACK, Settlement.REQUEUE, Settlement.RETURN, Settlement.DROP


def depth(transport: Transport, queue_name: str) -> int:
    status = transport.queue_status(queue_name)
    assert status is not None, f"no queue {queue_name!r}"
    return status.messages


def publish(transport: Transport, message: Message, count: int, queue_name: str = "q") -> None:
    outcomes = transport.publish_many([message(b"%d" % number, queue_name) for number in range(count)])
    assert set(outcomes) == {None}


def test_the_first_event_says_that_it_consumes(transport: Transport, queue: str, consume: Consume) -> None:
    _, collector = consume(queue)

    event = collector.wait_event(ConsumerState.CONSUMING)

    assert collector.events[0] is event
    status = transport.queue_status(queue)
    assert status is not None
    assert status.consumers == 1


def test_callbacks_come_on_one_thread_that_is_not_the_callers(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 5)
    _, collector = consume(queue)

    collector.wait_deliveries(5)
    collector.wait_event(ConsumerState.CONSUMING)

    assert len(collector.threads) == 1
    assert threading.current_thread().name not in collector.threads


def test_no_more_than_the_prefetch_is_unacked(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 10)

    consumer, collector = consume(queue, prefetch=3)
    collector.wait_deliveries(3)
    eventually(lambda: depth(transport, queue) == 7)
    assert collector.bodies == [b"0", b"1", b"2"]
    consumer.settle(collector.deliveries[0], ACK)

    collector.wait_deliveries(4)
    eventually(lambda: depth(transport, queue) == 6)
    assert len(collector.deliveries) == 4


def test_the_prefetch_is_per_queue(transport: Transport, message: Message, consume: Consume) -> None:
    transport.ensure_topology(Topology(queues=(Queue("a"), Queue("b"))), mode=DECLARE)
    publish(transport, message, 5, "a")
    publish(transport, message, 5, "b")

    _, collector = consume("a", "b", prefetch=2)
    collector.wait_deliveries(4)

    eventually(lambda: (depth(transport, "a"), depth(transport, "b")) == (3, 3))
    assert sorted(delivery.queue_name for delivery in collector.deliveries) == ["a", "a", "b", "b"]


def test_a_prefetch_below_one_is_refused(transport: Transport, queue: str, consume: Consume) -> None:
    with pytest.raises(ValueError, match="prefetch is 0"):
        consume(queue, prefetch=0)


def test_acked_messages_are_gone(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 20)
    consumer, collector = consume(queue, prefetch=20)
    for delivery in reversed(collector.wait_deliveries(20)):
        consumer.settle(delivery, ACK)

    consumer.close(timeout=5)

    assert depth(transport, queue) == 0


def test_what_is_flushed_does_not_wait_for_more(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 9)
    # One of eight is few, so it would be gathered for a minute.
    consumer, collector = consume(queue, prefetch=8, settle_delay=60.0)
    consumer.settle(collector.wait_deliveries(8)[0], ACK)

    consumer.flush(timeout=10)

    assert collector.wait_deliveries(9)[-1].body == b"8"
    consumer.close(timeout=5)
    consumer.flush(timeout=10)


def test_closing_flushes_settlements_and_returns_the_rest(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 6)
    consumer, collector = consume(queue)
    deliveries = collector.wait_deliveries(6)
    for delivery in deliveries[::2]:
        consumer.settle(delivery, ACK)

    consumer.close(timeout=5)
    consumer.close(timeout=5)

    eventually(lambda: depth(transport, queue) == 3)
    collector.wait_event(ConsumerState.CLOSED)
    assert len(collector.events_of(ConsumerState.CLOSED)) == 1
    assert collector.events[-1].state is ConsumerState.CLOSED
    _, again = consume(queue)
    assert sorted(each.body for each in again.wait_deliveries(3)) == [b"1", b"3", b"5"]
    assert all(each.redelivered for each in again.deliveries)


@pytest.mark.parametrize("settlement", [REQUEUE, RETURN])
def test_a_requeued_message_comes_again_marked(
    transport: Transport, queue: str, message: Message, consume: Consume, settlement: Settlement
) -> None:
    transport.publish(message(b"x", headers={"h": 1}))
    consumer, collector = consume(queue)

    consumer.settle(collector.wait_deliveries(1)[0], settlement)

    first, second = collector.wait_deliveries(2)
    assert (first.redelivered, second.redelivered) == (False, True)
    assert (second.body, second.properties.headers["h"]) == (b"x", 1)
    assert second.delivery_tag != first.delivery_tag
    consumer.settle(second, ACK)


def test_a_dropped_message_is_gone_where_there_are_no_dead_letters(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(message())
    consumer, collector = consume(queue)
    consumer.settle(collector.wait_deliveries(1)[0], DROP)

    consumer.close(timeout=5)

    assert depth(transport, queue) == 0


def test_a_dropped_message_is_dead_lettered_where_the_queue_says_so(
    transport: Transport, message: Message, consume: Consume
) -> None:
    dead = Queue("q", dead_letter_exchange="", dead_letter_routing_key="q.dead")
    transport.ensure_topology(Topology(queues=(dead, Queue("q.dead"))), mode=DECLARE)
    transport.publish(message(b"x", headers={"h": 1}))
    consumer, collector = consume("q")

    consumer.settle(collector.wait_deliveries(1)[0], DROP)

    _, buried = consume("q.dead")
    delivery = buried.wait_deliveries(1)[0]
    death = delivery.properties.headers["x-death"][0]
    assert (delivery.body, delivery.properties.headers["h"]) == (b"x", 1)
    assert (death["queue"], death["reason"], death["count"]) == ("q", "rejected", 1)


def test_a_message_that_comes_back_too_often_is_dead_lettered(
    transport: Transport, message: Message, consume: Consume
) -> None:
    limited = Queue("q", delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key="q.dead")
    transport.ensure_topology(Topology(queues=(limited, Queue("q.dead"))), mode=DECLARE)
    _, collector = consume("q")
    collector.settle_at_once = REQUEUE
    transport.publish(message(b"x"))

    _, buried = consume("q.dead")

    delivery = buried.wait_deliveries(1)[0]
    assert delivery.properties.headers["x-death"][0]["reason"] == "delivery_limit"
    assert [each.redelivered for each in collector.deliveries] == [False, True, True]


def test_settling_twice_is_our_bug(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(message())
    consumer, collector = consume(queue)
    delivery = collector.wait_deliveries(1)[0]
    consumer.settle(delivery, ACK)

    for settlement in Settlement:
        with pytest.raises(RuntimeError, match="settled before"):
            consumer.settle(delivery, settlement)


def test_without_acks_the_prefetch_does_not_bind_and_nothing_stays(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 20)

    consumer, collector = consume(queue, prefetch=1, no_ack=True)
    collector.wait_deliveries(20)
    consumer.close(timeout=5)

    assert depth(transport, queue) == 0


def test_a_lost_connection_returns_the_messages_and_stales_the_deliveries(
    door: Door, transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(message(b"x"))
    consumer, collector = consume(queue)
    before = collector.wait_deliveries(1)[0]

    door.drop_connections()

    lost = collector.wait_event(ConsumerState.LOST)
    collector.wait_event(ConsumerState.CONSUMING, count=2)
    after = collector.wait_deliveries(2)[1]
    consumer.settle(before, ACK)
    assert (after.body, after.redelivered) == (b"x", True)
    assert before.epoch <= lost.epoch < after.epoch
    eventually(lambda: transport.statistics().stale_settlements == 1)
    consumer.close(timeout=5)
    eventually(lambda: depth(transport, queue) == 1)


def test_a_wider_prefetch_brings_more_and_keeps_deliveries_valid(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 10)
    consumer, collector = consume(queue, prefetch=2)
    collector.wait_deliveries(2)

    consumer.set_prefetch(8)

    collector.wait_deliveries(8)
    for delivery in collector.deliveries[:]:
        consumer.settle(delivery, ACK)
    collector.wait_deliveries(10)
    assert [each.redelivered for each in collector.deliveries] == [False] * 10
    assert len(set(collector.bodies)) == 10


def test_a_narrower_prefetch_binds(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    consumer, collector = consume(queue, prefetch=10)
    collector.wait_event(ConsumerState.CONSUMING)
    consumer.set_prefetch(2)
    with pytest.raises(ValueError, match="prefetch is 0"):
        consumer.set_prefetch(0)

    # The change takes a round trip: what is published while it is on its way may still come the old way.
    eventually(lambda: has_one_consumer(transport, queue))
    publish(transport, message, 6)

    collector.wait_deliveries(2)
    eventually(lambda: depth(transport, queue) == 4)
    assert len(collector.deliveries) == 2


def has_one_consumer(transport: Transport, queue_name: str) -> bool:
    status = transport.queue_status(queue_name)
    return status is not None and status.consumers == 1


def has_no_consumer(transport: Transport, queue_name: str) -> bool:
    status = transport.queue_status(queue_name)
    return status is not None and status.consumers == 0


def test_a_paused_consumer_gets_nothing_and_keeps_its_deliveries(
    transport: Transport, classic: str, message: Message, consume: Consume
) -> None:
    # Classic: a quorum queue counts a cancelled consumer until its last delivery is settled.
    queue = classic
    transport.publish(message(b"before", queue))
    consumer, collector = consume(queue)
    held = collector.wait_deliveries(1)[0]

    consumer.pause()
    consumer.pause()
    eventually(lambda: has_no_consumer(transport, queue))
    transport.publish(message(b"while", queue))
    assert depth(transport, queue) == 1
    consumer.settle(held, ACK)
    consumer.resume()
    consumer.resume()

    assert collector.wait_deliveries(2)[1].body == b"while"
    assert [each.redelivered for each in collector.deliveries] == [False, False]
    assert [each.epoch for each in collector.deliveries] == [held.epoch, held.epoch]
    assert transport.statistics().stale_settlements == 0


def two_queues(transport: Transport) -> None:
    """Classic: a quorum queue counts a cancelled consumer until its last delivery is settled."""
    queues = (Queue("a", type=QueueType.CLASSIC), Queue("b", type=QueueType.CLASSIC))
    transport.ensure_topology(Topology(queues=queues), mode=DECLARE)


def test_a_paused_queue_is_not_consumed_until_it_is_no_longer_paused(
    transport: Transport, message: Message, consume: Consume
) -> None:
    two_queues(transport)
    for name in ("a", "b"):
        transport.publish(message(name.encode(), name))

    consumer, collector = consume("a", "b", paused_queues=["a"])
    collector.wait_event(ConsumerState.CONSUMING)
    collector.wait_deliveries(1)

    assert has_no_consumer(transport, "a")
    assert collector.bodies == [b"b"]
    consumer.pause_queues(())
    assert collector.wait_deliveries(2)[1].body == b"a"


def test_all_queues_may_be_paused(transport: Transport, message: Message, consume: Consume) -> None:
    two_queues(transport)
    consumer, collector = consume("a", "b", paused_queues=["a", "b"])
    collector.wait_event(ConsumerState.CONSUMING)

    consumer.pause_queues(["a"])
    transport.publish(message(b"later", "b"))

    assert collector.wait_deliveries(1)[0].body == b"later"


def test_a_queue_that_is_paused_keeps_its_deliveries_and_stays_so(
    door: Door, transport: Transport, message: Message, consume: Consume
) -> None:
    two_queues(transport)
    consumer, collector = consume("a", "b")
    transport.publish(message(b"held", "a"))
    held = collector.wait_deliveries(1)[0]

    consumer.pause_queues(["a"])
    eventually(lambda: has_no_consumer(transport, "a"))
    transport.publish(message(b"while", "a"))
    consumer.settle(held, ACK)
    # What makes the others consume anew leaves it alone.
    consumer.set_prefetch(7)
    consumer.pause()
    eventually(lambda: has_no_consumer(transport, "b"))
    consumer.resume()
    eventually(lambda: has_one_consumer(transport, "b"))
    door.drop_connections()
    collector.wait_event(ConsumerState.LOST)
    transport.publish(message(b"other", "b"))

    assert collector.wait_deliveries(2)[1].body == b"other"
    assert has_no_consumer(transport, "a")
    assert depth(transport, "a") == 1


def test_it_tells_what_it_consumes_and_what_it_misses(
    door: Door, transport: Transport, consume: Consume
) -> None:
    two_queues(transport)
    consumer, collector = consume("a", "b", "c", "d", paused_queues=["d"])
    eventually(
        lambda: consumer.queues == ConsumedQueues(consumed=("a", "b"), missing=("c",), absent=("c",)),
        within=10,
    )

    transport.delete_queue("b")
    eventually(
        lambda: consumer.queues == ConsumedQueues(consumed=("a",), missing=("b", "c"), absent=("b", "c")),
        within=10,
    )
    consumer.pause_queues(["b", "c", "d"])
    eventually(lambda: consumer.queues == ConsumedQueues(consumed=("a",)))
    consumer.pause()
    eventually(lambda: has_no_consumer(transport, "a"))
    assert consumer.queues == ConsumedQueues(consumed=("a",))
    consumer.resume()
    consumer.pause_queues([])
    transport.ensure_topology(Topology(queues=tuple(map(Queue, "bcd"))), mode=DECLARE)
    eventually(lambda: consumer.queues == ConsumedQueues(consumed=("a", "b", "c", "d")), within=10)

    consumer.close(timeout=5)
    assert consumer.queues == ConsumedQueues()
    assert not collector.events_of(ConsumerState.FAILED)


def test_one_whose_connection_is_lost_misses_all_until_it_is_back(
    door: Door, transport: Transport, queue: str, consume: Consume
) -> None:
    consumer, collector = consume(queue)
    seen: list[ConsumedQueues] = []
    collector.wait_event(ConsumerState.CONSUMING)
    collector.during_events = lambda: seen.append(consumer.queues)

    door.drop_connections()

    collector.wait_event(ConsumerState.CONSUMING, count=2)
    eventually(lambda: seen == [ConsumedQueues(missing=(queue,)), ConsumedQueues(consumed=(queue,))])


def test_one_that_has_failed_misses_all(classic: str, consume: Consume) -> None:
    consume(classic)[1].wait_event(ConsumerState.CONSUMING)
    second, failed = consume(classic, exclusive=True)

    failed.wait_event(ConsumerState.FAILED)

    eventually(lambda: second.queues == ConsumedQueues(missing=(classic,)))


def test_a_queue_that_is_not_there_yet_is_waited_for(
    transport: Transport, message: Message, consume: Consume
) -> None:
    _, collector = consume("q")
    event = collector.wait_event(ConsumerState.CANCELLED)
    assert event.queue_name == "q"

    transport.ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)
    transport.publish(message(b"x"))

    collector.wait_event(ConsumerState.CONSUMING)
    assert collector.wait_deliveries(1)[0].body == b"x"


def test_a_missing_queue_keeps_nobody_from_the_others(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    transport.publish(message(b"x"))

    _, collector = consume("missing", queue)

    assert collector.wait_deliveries(1)[0].body == b"x"
    assert collector.wait_event(ConsumerState.CANCELLED).queue_name == "missing"


def test_queues_to_declare_are_declared(transport: Transport, message: Message, consume: Consume) -> None:
    _, collector = consume("q", declare=Topology(queues=(Queue("q"),)))
    collector.wait_event(ConsumerState.CONSUMING)

    transport.publish(message(b"x"))

    assert collector.wait_deliveries(1)[0].body == b"x"


def test_a_deleted_queue_is_declared_and_consumed_again(
    door: Door, transport: Transport, message: Message, consume: Consume
) -> None:
    _, collector = consume("q", declare=Topology(queues=(Queue("q"),)))
    collector.wait_event(ConsumerState.CONSUMING)

    door.open().delete_queue("q")

    assert collector.wait_event(ConsumerState.CANCELLED).queue_name == "q"
    collector.wait_event(ConsumerState.CONSUMING, count=2)
    transport.publish(message(b"x"))
    assert collector.wait_deliveries(1)[0].body == b"x"


def test_an_exclusive_consumer_refuses_others(classic: str, consume: Consume) -> None:
    # Classic: quorum queues take no notice of `exclusive` (seen with 3.10 and 4.0).
    _, first = consume(classic, exclusive=True)
    first.wait_event(ConsumerState.CONSUMING)

    _, second = consume(classic)

    failed = second.wait_event(ConsumerState.FAILED)
    assert isinstance(failed.error, BrokerOperationError)
    assert failed.error.reply_code == 403
    assert second.events[-1] is failed


def test_higher_priority_comes_first(transport: Transport, message: Message, consume: Consume) -> None:
    queue = Queue("q", type=QueueType.CLASSIC, max_priority=5)
    transport.ensure_topology(Topology(queues=(queue,)), mode=DECLARE)
    for number, priority in enumerate([0, 5, None, 3, 5, 9]):
        transport.publish(message(b"%d" % number, priority=priority))

    consumer, collector = consume("q", prefetch=1)
    for count in range(1, 7):
        consumer.settle(collector.wait_deliveries(count)[-1], ACK)

    assert collector.bodies == [b"1", b"4", b"5", b"3", b"0", b"2"]


def test_a_consumer_with_priority_is_served_first(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    _, low = consume(queue, prefetch=10)
    _, high = consume(queue, prefetch=3, arguments={queue: {"x-priority": 10}})
    low.wait_event(ConsumerState.CONSUMING)
    high.wait_event(ConsumerState.CONSUMING)

    publish(transport, message, 5)

    high.wait_deliveries(3)
    low.wait_deliveries(2)
    assert (len(high.deliveries), len(low.deliveries)) == (3, 2)


def test_two_consumers_share_a_queue_and_no_message_goes_to_both(
    door: Door, transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    other = door.open()
    _, first = consume(queue, prefetch=50)
    _, second = consume(queue, prefetch=50, transport=other)
    first.wait_event(ConsumerState.CONSUMING)
    second.wait_event(ConsumerState.CONSUMING)

    publish(transport, message, 40)

    eventually(lambda: len(first.deliveries) + len(second.deliveries) == 40)
    assert sorted(first.bodies + second.bodies) == sorted(b"%d" % number for number in range(40))
    assert first.deliveries
    assert second.deliveries


def test_a_raising_callback_does_not_end_the_consumer(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    consumer, collector = consume(queue)
    collector.wait_event(ConsumerState.CONSUMING)
    collector.settle_at_once = ACK
    collector.consumer = None
    transport.publish(message(b"1"))
    delivery = collector.wait_deliveries(1)[0]
    consumer.settle(delivery, ACK)
    collector.consumer = _Raising()  # type: ignore[assignment]  # stands in for a callback that raises

    transport.publish(message(b"2"))
    eventually(lambda: transport.statistics().delivered == 2)
    collector.consumer = None
    transport.publish(message(b"3"))

    assert collector.wait_deliveries(2)[1].body == b"3"


class _Raising:
    def settle(self, delivery: object, settlement: object) -> None:
        raise RuntimeError("a fault of the callback")


def test_settling_from_many_threads_loses_nothing(
    transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    publish(transport, message, 200)
    consumer, collector = consume(queue, prefetch=200)
    deliveries = collector.wait_deliveries(200)
    start = threading.Barrier(8, timeout=10)

    def settle(part: int) -> None:
        start.wait()
        for delivery in deliveries[part::8]:
            consumer.settle(delivery, ACK)

    threads = [threading.Thread(target=settle, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    consumer.close(timeout=5)

    assert depth(transport, queue) == 0


def test_closing_the_transport_closes_its_consumers(
    door: Door, transport: Transport, queue: str, message: Message, consume: Consume
) -> None:
    other = door.open()
    transport.publish(message(b"x"))
    _, collector = consume(queue, transport=other)
    collector.wait_deliveries(1)

    other.close()

    collector.wait_event(ConsumerState.CLOSED)
    eventually(lambda: depth(transport, queue) == 1)
