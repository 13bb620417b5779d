"""Topology and queues, by the contract in `amqp_tasks.transport`."""

from __future__ import annotations

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, QueueType, Topology
from amqp_tasks.errors import BrokerOperationError, TopologyMismatch, UnknownQueue, UnroutableError
from amqp_tasks.transport import QueueStatus, TopologyMode, Transport
from support.conformance import Door, Message

CHECK, DECLARE, NONE = TopologyMode.CHECK, TopologyMode.DECLARE, TopologyMode.NONE

WHOLE = Topology(
    exchanges=(Exchange("e", ExchangeType.TOPIC), Exchange("f", ExchangeType.FANOUT)),
    queues=(
        Queue("q", delivery_limit=50, dead_letter_exchange="", dead_letter_routing_key="q.dead"),
        Queue("q.dead"),
        Queue("c", type=QueueType.CLASSIC, max_priority=5, message_ttl=60, expires=3600, max_length=10),
    ),
    bindings=(Binding("e", "q", routing_key="a.#"), Binding("f", "c")),
)


def test_declaring_is_idempotent(door: Door, transport: Transport, message: Message) -> None:
    transport.ensure_topology(WHOLE, mode=DECLARE)
    transport.publish(message(b"kept", "a.b", exchange="e"))

    transport.ensure_topology(WHOLE, mode=DECLARE)
    door.open().ensure_topology(WHOLE, mode=DECLARE)

    assert transport.queue_status("q") == QueueStatus(name="q", messages=1, consumers=0)
    assert transport.compare_topology(WHOLE) == ()
    transport.ensure_topology(WHOLE, mode=CHECK)


def test_checking_declares_nothing_and_names_what_is_missing(transport: Transport) -> None:
    with pytest.raises(UnknownQueue, match="topology apply") as caught:
        transport.ensure_topology(WHOLE, mode=CHECK)

    assert "q.dead" in str(caught.value)
    assert transport.queue_status("q") is None


def test_with_mode_none_nothing_happens(transport: Transport) -> None:
    transport.ensure_topology(WHOLE, mode=NONE)

    assert transport.queue_status("q") is None


@pytest.mark.parametrize("mode", [CHECK, DECLARE])
def test_a_difference_is_told_with_wanted_found_and_remedy(transport: Transport, mode: TopologyMode) -> None:
    transport.ensure_topology(Topology(queues=(Queue("q", type=QueueType.CLASSIC),)), mode=DECLARE)

    with pytest.raises(TopologyMismatch) as caught:
        transport.ensure_topology(Topology(queues=(Queue("q"),)), mode=mode)

    (line,) = caught.value.differences
    assert line.startswith(
        "queue 'q' exists with x-queue-type=classic, declared as x-queue-type=quorum: migrate it (amqp-tasks topology migrate"
        " q), delete it, or set"
    )


def test_all_differences_are_told_at_once(transport: Transport) -> None:
    there = Topology(
        exchanges=(Exchange("e", ExchangeType.TOPIC),), queues=(Queue("q", delivery_limit=5), Queue("r"))
    )
    transport.ensure_topology(there, mode=DECLARE)
    wanted = Topology(
        exchanges=(Exchange("e", ExchangeType.FANOUT),),
        queues=(Queue("q", delivery_limit=50, max_length=10), Queue("r", max_length=7), Queue("s")),
    )

    lines = transport.compare_topology(wanted)

    assert len(lines) == 5
    said = "\n".join(lines)
    assert "exchange 'e' exists with type=topic, declared as type=fanout" in said
    assert "queue 'q' exists with x-delivery-limit=5, declared as x-delivery-limit=50" in said
    assert "queue 'q' exists with no x-max-length, declared as x-max-length=10" in said
    assert "queue 'r' exists with no x-max-length, declared as x-max-length=7" in said
    assert "queue 's' is not on the broker" in said


def test_a_difference_leaves_everything_as_it_is(transport: Transport, message: Message) -> None:
    transport.ensure_topology(Topology(queues=(Queue("q", max_length=5),)), mode=DECLARE)
    transport.publish(message(b"x"))

    with pytest.raises(TopologyMismatch):
        transport.ensure_topology(Topology(queues=(Queue("q"), Queue("new"))), mode=DECLARE)

    assert transport.queue_status("q") == QueueStatus(name="q", messages=1, consumers=0)
    assert transport.queue_status("new") is None


def test_bindings_are_added_to_what_exists(transport: Transport, message: Message) -> None:
    bare = Topology(
        exchanges=(Exchange("e"),), queues=(Queue("q"),), bindings=(Binding("e", "q", routing_key="a"),)
    )
    transport.ensure_topology(bare, mode=DECLARE)

    transport.ensure_topology(
        Topology(
            exchanges=bare.exchanges, queues=bare.queues, bindings=(Binding("e", "q", routing_key="b"),)
        ),
        mode=DECLARE,
    )

    transport.publish(message(b"", "a", exchange="e"))
    transport.publish(message(b"", "b", exchange="e"))
    assert transport.queue_status("q") == QueueStatus(name="q", messages=2, consumers=0)


def test_a_queue_that_does_not_exist_has_no_status(transport: Transport) -> None:
    assert transport.queue_status("missing") is None


def test_purging_tells_how_many(transport: Transport, queue: str, message: Message) -> None:
    transport.publish_many([message() for _ in range(7)])

    assert transport.purge_queue(queue) == 7
    assert transport.purge_queue(queue) == 0
    assert transport.queue_status(queue) == QueueStatus(name=queue, messages=0, consumers=0)


def test_purging_a_queue_that_does_not_exist_is_an_error(transport: Transport) -> None:
    with pytest.raises(UnknownQueue, match="missing"):
        transport.purge_queue("missing")


def test_deleting_takes_the_queue_with_all_it_holds(
    transport: Transport, queue: str, message: Message
) -> None:
    transport.publish(message())

    transport.delete_queue(queue)
    transport.delete_queue(queue)

    assert transport.queue_status(queue) is None


def test_opening_tells_who_answered_and_hides_the_password(transport: Transport) -> None:
    info = transport.open(timeout=10)

    assert info.product
    assert len(info.version) >= 2
    assert ":guest@" not in info.url


def test_bindings_are_made_and_removed_one_by_one(transport: Transport, message: Message) -> None:
    transport.ensure_topology(WHOLE, mode=DECLARE)
    more = Binding("e", "c", routing_key="more")

    transport.bind((more, more))
    transport.publish(message(b"", "more", exchange="e"))
    transport.unbind((more, more))

    assert transport.queue_status("c") == QueueStatus(name="c", messages=1, consumers=0)
    with pytest.raises(UnroutableError):
        transport.publish(message(b"", "more", exchange="e"))


def test_a_binding_of_what_is_not_there_is_refused_and_its_removal_is_not(transport: Transport) -> None:
    transport.ensure_topology(WHOLE, mode=DECLARE)

    for loose in (Binding("e", "gone"), Binding("gone", "c")):
        with pytest.raises(BrokerOperationError) as caught:
            transport.bind((loose,))
        assert caught.value.reply_code == 404
        transport.unbind((loose,))


def test_many_queues_are_asked_for_in_their_order(transport: Transport, message: Message) -> None:
    """More than are asked for at once."""
    there = [f"q{number}" for number in range(0, 40, 3)]
    transport.ensure_topology(Topology(queues=tuple(map(Queue, there))), mode=DECLARE)
    transport.publish(message(b"", "q3"))
    names = [f"q{number}" for number in range(40)]

    found = transport.queue_statuses(names)

    expected = [QueueStatus(name=name, messages=int(name == "q3"), consumers=0) for name in names]
    assert found == [status if status.name in there else None for status in expected]
    assert transport.queue_statuses([]) == []
