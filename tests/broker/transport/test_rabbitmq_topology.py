"""Declaring, checking and comparing on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Overflow, Queue, QueueType, Topology
from amqp_tasks.errors import BrokerOperationError, TopologyMismatch, UnknownQueue
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import RawClient, Vhost

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

FULL = Topology(
    exchanges=(Exchange("jobs", ExchangeType.TOPIC), Exchange("audit", ExchangeType.FANOUT)),
    queues=(
        Queue("mail", delivery_limit=50, dead_letter_exchange="", dead_letter_routing_key="mail.dead"),
        Queue("mail.dead"),
        Queue("hipri", type=QueueType.CLASSIC, max_priority=10),
    ),
    bindings=(
        Binding(source="jobs", destination="mail", routing_key="mail.#"),
        Binding(source="audit", destination="hipri"),
    ),
)


def test_everything_is_declared_and_declaring_again_changes_nothing(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    transport = make_transport(vhost.url)

    for _ in range(2):
        transport.ensure_topology(FULL, mode=TopologyMode.DECLARE)

    assert transport.compare_topology(FULL) == ()
    transport.ensure_topology(FULL, mode=TopologyMode.CHECK)
    transport.publish(message("mail.send", "x", exchange="jobs"))
    assert raw_client.get("mail").body == b"x"


def test_promise_19_all_differences_are_told_with_what_is_there_and_what_was_wanted(
    vhost: Vhost, make_transport: Make
) -> None:
    transport = make_transport(vhost.url)
    there = Topology(
        exchanges=(Exchange("jobs", ExchangeType.DIRECT),),
        queues=(
            Queue("mail", type=QueueType.CLASSIC),
            Queue(
                "log", type=QueueType.CLASSIC, max_length=10, overflow=Overflow.REJECT_PUBLISH, message_ttl=5
            ),
        ),
    )
    transport.ensure_topology(there, mode=TopologyMode.DECLARE)
    wanted = Topology(
        exchanges=(Exchange("jobs", ExchangeType.TOPIC),),
        queues=(
            Queue("mail"),
            Queue("log", type=QueueType.CLASSIC, max_length=20, max_priority=3, overflow=Overflow.DROP_HEAD),
        ),
    )

    with pytest.raises(TopologyMismatch) as caught:
        transport.ensure_topology(wanted, mode=TopologyMode.DECLARE)

    text = "\n".join(caught.value.differences)
    assert (
        "queue 'mail' exists with x-queue-type=classic, declared as x-queue-type=quorum: migrate it" in text
    )
    for argument in (
        "x-max-length=10",
        "x-max-priority=3",
        "x-message-ttl=5000",
        "type=direct",
        "x-overflow",
    ):
        assert argument in text
    assert len(caught.value.differences) == len(
        {line.split(" exists")[1] for line in caught.value.differences}
    )
    assert transport.compare_topology(wanted) == caught.value.differences
    assert transport.compare_topology(there) == ()


def test_check_creates_nothing_and_names_what_is_missing(
    vhost: Vhost, make_transport: Make, raw_client: RawClient
) -> None:
    transport = make_transport(vhost.url)
    transport.ensure_topology(Topology(queues=(Queue("mail.dead"),)), mode=TopologyMode.DECLARE)

    with pytest.raises(UnknownQueue, match="hipri"):
        transport.ensure_topology(FULL, mode=TopologyMode.CHECK)

    assert {queue["name"] for queue in vhost.queues()} <= {"mail.dead"}
    assert transport.queue_status("mail") is None
    assert len(transport.compare_topology(FULL)) == 4


def test_mode_none_asks_nothing(make_transport: Make) -> None:
    make_transport("amqp://nobody@127.0.0.1:1//").ensure_topology(FULL, mode=TopologyMode.NONE, timeout=0.1)


def test_existing_queues_need_no_permission_to_configure(vhost: Vhost, make_transport: Make) -> None:
    queues = Topology(queues=FULL.queues)
    make_transport(vhost.url).ensure_topology(queues, mode=TopologyMode.DECLARE)
    limited = make_transport(vhost.limited_url(write=".*", read=".*"))

    limited.ensure_topology(queues, mode=TopologyMode.DECLARE)
    limited.ensure_topology(queues, mode=TopologyMode.CHECK)


def test_a_missing_queue_without_permission_to_configure_is_the_brokers_answer(
    vhost: Vhost, make_transport: Make
) -> None:
    limited = make_transport(vhost.limited_url(write=".*", read=".*"))

    with pytest.raises(BrokerOperationError) as caught:
        limited.ensure_topology(Topology(queues=(Queue("mail"),)), mode=TopologyMode.DECLARE)

    assert caught.value.reply_code == 403


def test_queues_can_be_counted_purged_and_deleted(
    vhost: Vhost, make_transport: Make, message: Message
) -> None:
    transport = make_transport(vhost.url)
    transport.ensure_topology(Topology(queues=(Queue("mail"),)), mode=TopologyMode.DECLARE)
    transport.publish_many(message("mail", number) for number in range(3))

    status = transport.queue_status("mail")
    assert status is not None
    assert (status.messages, status.consumers) == (3, 0)
    assert transport.purge_queue("mail") == 3
    transport.delete_queue("mail")
    transport.delete_queue("mail")
    assert transport.queue_status("mail") is None
    with pytest.raises(UnknownQueue):
        transport.purge_queue("mail")


def test_operations_refused_by_the_broker_leave_publishing_alone(
    vhost: Vhost, make_transport: Make, message: Message
) -> None:
    transport = make_transport(vhost.url)
    transport.ensure_topology(Topology(queues=(Queue("mail"),)), mode=TopologyMode.DECLARE)

    assert transport.queue_status("missing") is None
    transport.publish(message("mail"))

    assert transport.statistics().connects == 1
    assert transport.statistics().resent == 0
