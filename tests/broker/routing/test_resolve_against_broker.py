"""`resolve` says where RabbitMQ puts a message, for random topologies, keys and headers."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from amqp_routing import (
    Binding,
    Exchange,
    ExchangeType,
    PublishRefused,
    Queue,
    QueueType,
    Topology,
    UnknownExchange,
    declare,
    resolve,
)
from support import eventually
from support.raw import RawClient
from support.topologies import EXCHANGE_NAMES, QUEUE_NAMES, Message, messages, topologies

# One virtual host for all examples of a test: each example deletes what it declared.
_PER_EXAMPLE = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _publish(channel: BlockingChannel, message: Message, number: int) -> None:
    properties = pika.BasicProperties(headers=message.headers, message_id=str(number))
    channel.basic_publish(message.exchange, message.routing_key, b"", properties)


def _taken(channel: BlockingChannel, queue_name: str) -> list[str]:
    found: list[str] = []
    while True:
        _, properties, _ = channel.basic_get(queue_name, auto_ack=True)
        if properties is None:
            return found
        found.append(str(properties.message_id))


def _where_they_went(channel: BlockingChannel, sent: list[Message]) -> list[set[str]]:
    """The queues of each message. The channel routes in order, so that a get after the publishes sees them all."""
    for number, message in enumerate(sent):
        _publish(channel, message, number)
    went: list[set[str]] = [set() for _ in sent]
    for queue_name in QUEUE_NAMES:
        for message_id in _taken(channel, queue_name):
            found = went[int(message_id)]
            assert queue_name not in found, f"{sent[int(message_id)]} came twice to {queue_name}"
            found.add(queue_name)
    return went


def _undeclare(channel: BlockingChannel) -> None:
    for queue_name in QUEUE_NAMES:
        channel.queue_delete(queue_name)
    for name in EXCHANGE_NAMES:
        channel.exchange_delete(name)


@_PER_EXAMPLE
@given(data=st.data(), topology=topologies())
def test_every_message_lands_where_resolve_says(
    raw_client: RawClient, data: st.DataObject, topology: Topology
) -> None:
    sent = data.draw(st.lists(messages(topology), min_size=8, max_size=25))
    channel = raw_client.connection.channel()

    try:
        declare(topology, channel)
        went = _where_they_went(channel, sent)
    finally:
        _undeclare(channel)
        channel.close()

    for message, queue_names in zip(sent, went, strict=True):
        said = set(resolve(topology, message.exchange, message.routing_key, message.headers))
        assert said == queue_names, message


def _refusal(channel: BlockingChannel, exchange: str, headers: dict[str, Any] | None = None) -> int:
    channel.basic_publish(exchange, "key", b"", pika.BasicProperties(headers=headers))
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.queue_declare("reply", passive=True)
    return int(caught.value.reply_code)


def test_what_resolve_refuses_the_broker_refuses(raw_client: RawClient) -> None:
    topology = Topology(exchanges=(Exchange("inner", internal=True), Exchange("outer")))
    declare(topology, raw_client.connection.channel())

    assert _refusal(raw_client.connection.channel(), "inner") == 403
    assert _refusal(raw_client.connection.channel(), "nowhere") == 404
    assert _refusal(raw_client.connection.channel(), "outer", {"CC": "key"}) == 406
    with pytest.raises(PublishRefused, match="internal"):
        resolve(topology, "inner", "key")
    with pytest.raises(UnknownExchange, match="unknown exchange 'nowhere'"):
        resolve(topology, "nowhere", "key")
    with pytest.raises(PublishRefused, match="CC"):
        resolve(topology, "outer", "key", {"CC": "key"})


def test_a_dead_letter_circle_that_topology_refuses_loses_messages(raw_client: RawClient) -> None:
    channel = raw_client.connection.channel()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-message-ttl": 1}
    channel.queue_declare("q", arguments=arguments)
    channel.queue_declare("watch", arguments={**arguments, "x-dead-letter-routing-key": "seen"})
    channel.queue_declare("seen")

    channel.basic_publish("", "q", b"lost")
    channel.basic_publish("", "watch", b"expired later")
    raw_client.get("seen")

    eventually(lambda: raw_client.depth("q") == 0)
    with pytest.raises(ValueError, match="circle"):
        Topology(
            queues=(
                Queue(
                    "q",
                    type=QueueType.CLASSIC,
                    dead_letter_exchange="",
                    dead_letter_routing_key="q",
                    message_ttl=0.001,
                ),
            )
        )


def test_declaring_a_topology_twice_changes_nothing(raw_client: RawClient) -> None:
    topology = Topology(
        exchanges=(
            Exchange("events", ExchangeType.TOPIC, alternate_exchange="rest"),
            Exchange("rest", ExchangeType.FANOUT),
        ),
        queues=(
            Queue(
                "orders", dead_letter_exchange="", dead_letter_routing_key="orders.dead", delivery_limit=50
            ),
            Queue("orders.dead"),
            Queue("log", type=QueueType.STREAM, arguments={"x-max-age": "1h"}),
        ),
        bindings=(Binding("events", "orders", routing_key="order.#"), Binding("rest", "log")),
    )

    declare(topology, raw_client.connection.channel())
    declare(topology, raw_client.connection.channel())

    raw_client.publish("order.paid", b"1", exchange="events")
    assert raw_client.get("orders").body == b"1"
