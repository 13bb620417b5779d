"""The policies of a topology do on the broker what its arguments would have done."""

from __future__ import annotations

from amqp_routing import (
    DeadLetterStrategy,
    Exchange,
    ExchangeType,
    Overflow,
    Queue,
    QueueType,
    Topology,
    declare,
    split_policies,
)
from support.eventually import eventually
from support.raw import RawClient
from support.vhosts import Vhost


def test_policies_do_what_the_arguments_would(vhost: Vhost, raw_client: RawClient) -> None:
    topology = Topology(
        exchanges=(Exchange("in", alternate_exchange="rest"), Exchange("rest", ExchangeType.FANOUT)),
        queues=(
            Queue("short", message_ttl=0.001, dead_letter_exchange="", dead_letter_routing_key="short.dead"),
            Queue("short.dead", type=QueueType.CLASSIC, max_length=9, max_length_bytes=10**6, expires=600),
            Queue(
                "sure",
                delivery_limit=1,
                dead_letter_exchange="",
                dead_letter_routing_key="short.dead",
                dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
                overflow=Overflow.REJECT_PUBLISH,
            ),
        ),
    )
    bare, policies = split_policies(topology)

    for policy in policies:
        vhost.management.request("PUT", "policies", vhost.name, policy.name, body=policy.document())
    declare(bare, raw_client.channel)

    assert vhost.management.exchange(vhost.name, "in")["policy"] == "exchange.in"
    eventually(lambda: _assert_policy(vhost, "short.dead"))
    raw_client.publish("short", b"expires")
    assert raw_client.get("short.dead").body == b"expires"
    raw_client.publish("sure", b"comes back too often")
    _return_once(raw_client, "sure")
    _return_once(raw_client, "sure")
    assert raw_client.get("short.dead").body == b"comes back too often"


def _assert_policy(vhost: Vhost, queue_name: str) -> None:
    assert vhost.queue(queue_name).get("policy") == f"queue.{queue_name}"


def _return_once(raw_client: RawClient, queue_name: str) -> None:
    def get() -> int:
        method, _, _ = raw_client.channel.basic_get(queue_name)
        assert method is not None
        assert method.delivery_tag is not None
        return method.delivery_tag

    raw_client.channel.basic_nack(eventually(get), requeue=True)
