"""Policies instead of arguments."""

from __future__ import annotations

from amqp_routing import (
    Binding,
    DeadLetterStrategy,
    Exchange,
    ExchangeType,
    Overflow,
    Policy,
    Queue,
    QueueType,
    Topology,
    split_policies,
)


def test_what_policies_can_set_moves_into_them() -> None:
    topology = Topology(
        exchanges=(Exchange("in", alternate_exchange="amq.fanout"),),
        queues=(
            Queue(
                "a.b", delivery_limit=5, message_ttl=1.5, dead_letter_exchange="", dead_letter_routing_key="c"
            ),
            Queue("c", type=QueueType.CLASSIC, max_priority=3),
        ),
    )

    bare, policies = split_policies(topology, priority=7)

    assert bare.queues == (Queue("a.b"), Queue("c", type=QueueType.CLASSIC, max_priority=3))
    assert bare.exchanges == (Exchange("in"),)
    assert [policy.name for policy in policies] == ["queue.a.b", "exchange.in"]
    assert policies[0].document() == {
        "pattern": r"^a\.b$",
        "apply-to": "queues",
        "definition": {
            "dead-letter-exchange": "",
            "dead-letter-routing-key": "c",
            "delivery-limit": 5,
            "message-ttl": 1500,
        },
        "priority": 7,
    }


def test_a_policy_is_rabbitmqctl_arguments() -> None:
    policy = Policy(name="queue.q", pattern="^q$", apply_to="queues", definition={"max-length": 3})

    assert policy.arguments() == (
        "set_policy", "--priority", "0", "--apply-to", "queues", "queue.q", "^q$", '{"max-length": 3}',
    )  # fmt: skip


def test_what_feeds_an_internal_exchange_stays_an_argument() -> None:
    inner = Exchange("inner", ExchangeType.FANOUT, internal=True)
    work = Queue(
        "work",
        dead_letter_exchange="inner",
        dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
        overflow=Overflow.REJECT_PUBLISH,
        max_length=9,
    )
    entry = Exchange("entry", alternate_exchange="inner")
    topology = Topology(
        exchanges=(inner, entry), queues=(work, Queue("dead")), bindings=(Binding("inner", "dead"),)
    )

    bare, policies = split_policies(topology)

    assert bare.exchange("entry") == entry
    assert bare.queue("work") is not None
    assert "x-max-length" not in bare.queues[0].declared_arguments()
    assert bare.queues[0].dead_letter_exchange == "inner"
    assert [policy.definition for policy in policies] == [{"max-length": 9}]
