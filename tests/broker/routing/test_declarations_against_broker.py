"""What the value classes accept RabbitMQ declares; what they refuse it refuses, or takes and does something else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pika.exceptions import ChannelClosedByBroker

from amqp_routing import (
    Binding,
    DeadLetterStrategy,
    DeclarationError,
    DelayedRetryType,
    Exchange,
    ExchangeType,
    Overflow,
    Queue,
    QueueType,
    Topology,
    TopologyError,
    declare,
    graph,
)
from support.eventually import eventually
from support.raw import RawClient
from support.vhosts import Vhost

_optional_count = st.one_of(st.none(), st.integers(0, 300))
_optional_seconds = st.one_of(st.none(), st.floats(0.001, 10**7))

_fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"type": st.sampled_from(QueueType)},
    optional={
        "durable": st.booleans(),
        "auto_delete": st.booleans(),
        "exclusive": st.booleans(),
        "max_priority": _optional_count,
        "dead_letter_exchange": st.sampled_from(("", "amq.fanout")),
        "dead_letter_routing_key": st.sampled_from(("", "q", "elsewhere")),
        "dead_letter_strategy": st.sampled_from(DeadLetterStrategy),
        "delivery_limit": _optional_count,
        "message_ttl": _optional_seconds,
        "expires": _optional_seconds,
        "max_length": _optional_count,
        "max_length_bytes": _optional_count,
        "overflow": st.sampled_from(Overflow),
        "single_active_consumer": st.booleans(),
        "consumer_timeout": _optional_seconds,
        "delayed_retry_type": st.sampled_from(DelayedRetryType),
        "delayed_retry_min": _optional_seconds,
        "delayed_retry_max": _optional_seconds,
    },
)


def _queue(fields: dict[str, Any]) -> Queue | None:
    try:
        return Queue("q", **fields)
    except DeclarationError:
        return None


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(fields=_fields)
def test_every_queue_that_can_be_built_can_be_declared(raw_client: RawClient, fields: dict[str, Any]) -> None:
    queue = _queue(fields)
    assume(queue is not None)
    assert queue is not None
    channel = raw_client.connection.channel()

    # Twice: an argument that the broker reads otherwise than it was written shows as inequivalent.
    for _ in range(2):
        channel.queue_declare(
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
            arguments=queue.declared_arguments(),
        )

    channel.queue_delete(queue.name)
    channel.close()


_DEAD = {"x-dead-letter-exchange": ""}

_REFUSED: tuple[tuple[dict[str, Any], dict[str, Any], dict[str, Any]], ...] = (
    # fields, declared flags, declared arguments
    ({"type": "quorum", "durable": False}, {"durable": False}, {}),
    ({"type": "quorum", "exclusive": True}, {"exclusive": True}, {}),
    ({"type": "quorum", "auto_delete": True}, {"auto_delete": True}, {}),
    ({"type": "quorum", "max_priority": 5}, {}, {"x-max-priority": 5}),
    ({"type": "stream", "durable": False}, {"durable": False}, {}),
    ({"type": "stream", "exclusive": True}, {"exclusive": True}, {}),
    ({"type": "stream", "dead_letter_exchange": ""}, {}, _DEAD),
    ({"type": "stream", "message_ttl": 1}, {}, {"x-message-ttl": 1000}),
    ({"type": "stream", "expires": 60}, {}, {"x-expires": 60000}),
    ({"type": "stream", "max_length": 5}, {}, {"x-max-length": 5}),
    ({"type": "stream", "overflow": "drop-head"}, {}, {"x-overflow": "drop-head"}),
    ({"type": "stream", "single_active_consumer": True}, {}, {"x-single-active-consumer": True}),
    ({"type": "stream", "max_priority": 5}, {}, {"x-max-priority": 5}),
    ({"type": "stream", "delivery_limit": 5}, {}, {"x-delivery-limit": 5}),
    ({"type": "classic", "delivery_limit": 5}, {}, {"x-delivery-limit": 5}),
    ({"type": "classic", "max_priority": 256}, {}, {"x-max-priority": 256}),
    ({"type": "classic", "expires": 0}, {}, {"x-expires": 0}),
    ({"type": "classic", "dead_letter_routing_key": "k"}, {}, {"x-dead-letter-routing-key": "k"}),
    (
        {"type": "classic", "dead_letter_exchange": "", "dead_letter_strategy": "at-most-once"},
        {},
        {**_DEAD, "x-dead-letter-strategy": "at-most-once"},
    ),
    ({"type": "classic", "arguments": {"x-max-age": "1h"}}, {}, {"x-max-age": "1h"}),
    ({"type": "quorum", "arguments": {"x-queue-mode": "lazy"}}, {}, {"x-queue-mode": "lazy"}),
)


@pytest.mark.parametrize(
    ("fields", "flags", "arguments"), _REFUSED, ids=lambda each: "-".join(map(str, each))
)
def test_a_queue_that_cannot_be_built_cannot_be_declared(
    raw_client: RawClient, fields: dict[str, Any], flags: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Rows R06, R10."""
    with pytest.raises(DeclarationError):
        Queue("q", **fields)

    with pytest.raises(ChannelClosedByBroker) as caught:
        raw_client.channel.queue_declare(
            "q", **{"durable": True, **flags}, arguments={"x-queue-type": fields["type"], **arguments}
        )
    assert caught.value.reply_code == 406


@pytest.mark.parametrize(
    ("exchange_type", "arguments"),
    [("headers", {"x-match": "some"}), ("headers", {"x-match": 1})],
    ids=str,
)
def test_a_binding_that_topology_refuses_cannot_be_made(
    raw_client: RawClient, exchange_type: str, arguments: dict[str, Any]
) -> None:
    raw_client.declare("q")
    raw_client.channel.exchange_declare("e", exchange_type)

    with pytest.raises(TopologyError, match="x-match"):
        Topology(
            exchanges=(Exchange("e", ExchangeType(exchange_type)),),
            queues=(Queue("q"),),
            bindings=(Binding("e", "q", arguments=arguments),),
        )
    with pytest.raises(ChannelClosedByBroker) as caught:
        raw_client.channel.queue_bind("q", "e", "", arguments)
    assert caught.value.reply_code == 406


def test_an_alternate_exchange_of_nothing_drops_messages(raw_client: RawClient) -> None:
    raw_client.declare("q")
    raw_client.channel.exchange_declare("e", "direct", arguments={"alternate-exchange": ""})
    raw_client.channel.queue_bind("q", "e", "later")

    raw_client.connection.channel().basic_publish("e", "q", b"dropped")
    raw_client.publish("later", b"kept", exchange="e")

    assert raw_client.get("q").body == b"kept"
    with pytest.raises(DeclarationError, match="drops every message"):
        Exchange("e", alternate_exchange="")


def test_a_declared_topology_is_what_the_management_api_reports(vhost: Vhost, raw_client: RawClient) -> None:
    topology = Topology(
        exchanges=(
            Exchange("events", ExchangeType.TOPIC),
            Exchange("inner", ExchangeType.FANOUT, internal=True),
        ),
        queues=(Queue("mail", delivery_limit=50), Queue("log", type=QueueType.CLASSIC, max_priority=9)),
        bindings=(
            Binding("events", "mail", routing_key="mail.#"),
            Binding("events", "inner", destination_kind="exchange", routing_key="#"),  # type: ignore[arg-type]  # text is read too
            Binding("inner", "log"),
        ),
    )

    declare(topology, raw_client.channel)

    def reported() -> None:
        found = {each["name"]: each["arguments"] for each in vhost.queues()}
        assert found == {queue.name: queue.declared_arguments() for queue in topology.queues}

    eventually(reported)
    assert graph(topology).splitlines() == [
        "events topic",
        "├── [mail.#] queue mail (quorum, delivery-limit=50)",
        "└── [#] exchange inner",
        "inner fanout, internal",
        "└── [] queue log (classic, max-priority=9)",
    ]
