"""Exchanges, queues and bindings as values."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from amqp_routing import (
    Binding,
    DeadLetterStrategy,
    DeclarationError,
    DelayedRetryType,
    DestinationKind,
    Exchange,
    ExchangeType,
    Overflow,
    Queue,
    QueueType,
    Table,
)


def test_a_queue_declares_what_its_fields_say() -> None:
    queue = Queue(
        "mail",
        dead_letter_exchange="",
        dead_letter_routing_key="mail.dead",
        dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
        delivery_limit=50,
        message_ttl=1.5,
        expires=60,
        max_length=10,
        max_length_bytes=2000,
        overflow=Overflow.REJECT_PUBLISH,
        single_active_consumer=True,
        consumer_timeout=90,
        delayed_retry_type=DelayedRetryType.FAILED,
        delayed_retry_min=1.5,
        delayed_retry_max=60,
        arguments={"x-queue-leader-locator": "balanced"},
    )

    assert queue.declared_arguments() == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "mail.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-delivery-limit": 50,
        "x-message-ttl": 1500,
        "x-expires": 60000,
        "x-max-length": 10,
        "x-max-length-bytes": 2000,
        "x-overflow": "reject-publish",
        "x-single-active-consumer": True,
        "x-consumer-timeout": 90000,
        "x-delayed-retry-type": "failed",
        "x-delayed-retry-min": 1500,
        "x-delayed-retry-max": 60000,
        "x-queue-leader-locator": "balanced",
    }


def test_queues_compare_by_what_is_declared() -> None:
    same = Queue("q", message_ttl=1, consumer_arguments={"x-priority": 1})

    assert same == Queue("q", message_ttl=1.0001)
    assert hash(same) == hash(Queue("q", message_ttl=1.0001))
    assert same != Queue("q", message_ttl=2)
    assert same != Queue("q", type=QueueType.CLASSIC, message_ttl=1)
    assert Queue("q", arguments={"a": True}) != Queue("q", arguments={"a": 1})


def test_values_pickle_equal() -> None:
    values = (
        Queue("q", arguments={"nested": {"list": [1, "a"]}}),
        Exchange("e", ExchangeType.TOPIC, alternate_exchange="f", arguments={"a": 1}),
        Binding("e", "q", routing_key="#", arguments={"h": None}),
    )

    assert pickle.loads(pickle.dumps(values)) == values


def test_arguments_cannot_be_changed_from_outside() -> None:
    given = {"x-custom": [1]}
    queue = Queue("q", arguments=given)

    given["x-custom"].append(2)
    queue.declared_arguments()["x-custom"].append(3)

    assert queue.declared_arguments()["x-custom"] == [1]
    with pytest.raises(AttributeError):
        queue.name = "other"  # type: ignore[misc]  # frozen


def test_a_table_equals_a_dict_of_the_same_kinds() -> None:
    assert Table({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert Table({"a": 1}) != {"a": True}
    assert Table({"a": 1}) != {"a": 1.0}
    assert Table({"a": 1}) != 1


def test_text_for_an_enum_is_read() -> None:
    assert Queue("q", type="classic").type is QueueType.CLASSIC  # type: ignore[arg-type]  # as from a file
    assert Exchange("e", "topic").type is ExchangeType.TOPIC  # type: ignore[arg-type]


def test_a_misspelt_type_names_the_nearest() -> None:
    with pytest.raises(DeclarationError, match=r"queue 'q': type is 'qorum', .* did you mean 'quorum'"):
        Queue("q", type="qorum")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"max_priority": 5},
            r"takes no max_priority: use type=QueueType.CLASSIC, or a queue for each level",
        ),
        ({"delivery_limit": -1}, r"delivery_limit is -1, .* give a high number instead"),
        ({"delivery_limit": -2}, r"expected a whole number, at least 0"),
        ({"delivery_limit": 1.5}, r"expected a whole number"),
        ({"delivery_limit": True}, r"expected a whole number"),
        ({"message_ttl": "5"}, r"message_ttl is '5', expected seconds, at least 0"),
        ({"message_ttl": float("nan")}, r"message_ttl is nan"),
        ({"expires": 0}, r"expires is 0, expected seconds, at least 0.001"),
        ({"durable": False}, r"always durable"),
        ({"exclusive": True}, r"cannot be exclusive"),
        ({"auto_delete": True}, r"cannot be auto_delete: .* or use expires"),
        ({"dead_letter_routing_key": "k"}, r"without dead_letter_exchange"),
        ({"dead_letter_exchange": "x" * 256}, r"at most 255 bytes"),
        (
            {"dead_letter_exchange": "", "dead_letter_strategy": DeadLetterStrategy.AT_LEAST_ONCE},
            r"works with overflow=Overflow.REJECT_PUBLISH only",
        ),
        ({"delayed_retry_type": "failed"}, r"'failed' without delayed_retry_min: add one"),
        ({"delayed_retry_min": 1}, r"without delayed_retry_type has no effect"),
        ({"delayed_retry_type": "disabled", "delayed_retry_max": 1}, r"delayed_retry_max without"),
        (
            {"delayed_retry_type": "all", "delayed_retry_min": 5, "delayed_retry_max": 1},
            r"delayed_retry_max is 1, less than delayed_retry_min \(5\)",
        ),
        (
            {"delayed_retry_type": "all", "delayed_retry_min": "5", "delayed_retry_max": 10},
            r"delayed_retry_min is '5', expected ",
        ),
        ({"delayed_retry_type": "often"}, r"delayed_retry_type is 'often'"),
        (
            {"type": QueueType.CLASSIC, "delayed_retry_type": "all", "delayed_retry_min": 5},
            r"a classic queue takes no delayed_retry_type: .*QueueType.QUORUM",
        ),
        ({"overflow": Overflow.REJECT_PUBLISH_DLX}, r"ignores overflow 'reject-publish-dlx'"),
        ({"single_active_consumer": "yes"}, r"expected True or False"),
        ({"arguments": {"x-max-priority": 5}}, r"give x-max-priority as max_priority=…"),
        ({"arguments": {"x-queue-type": "quorum"}}, r"give x-queue-type as type=…"),
        ({"arguments": {"x-max-age": "1h"}}, r"takes no x-max-age: .*QueueType.STREAM"),
        ({"arguments": {"x": object()}}, r"arguments\['x'\] is of type object"),
        ({"arguments": {"x": [{"y": 2**63}]}}, r"arguments\['x'\]\[0\]\['y'\] is .* more than 64 bits"),
        ({"consumer_arguments": {1: 2}}, r"consumer_arguments has the key 1"),
        (
            {"type": QueueType.STREAM, "dead_letter_exchange": ""},
            r"a stream queue takes no dead_letter_exchange",
        ),
        ({"type": QueueType.CLASSIC, "delivery_limit": 5}, r"a classic queue takes no delivery_limit"),
        ({"type": QueueType.CLASSIC, "max_priority": 256}, r"at least 0 and at most 255"),
    ],
)
def test_a_queue_that_rabbitmq_would_refuse_names_the_remedy(fields: dict[str, Any], message: str) -> None:
    """Rows R06, R10."""
    with pytest.raises(DeclarationError, match=message):
        Queue("q", **fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "empty"), ("amq.x", "belong to the broker"), ("é" * 128, "255 bytes"), ("a\nb", "line break")],
)
def test_names_that_the_broker_would_not_keep_are_refused(name: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Queue(name)


def test_all_faults_of_a_queue_are_told_at_once() -> None:
    with pytest.raises(DeclarationError) as caught:
        Queue("", max_priority=1, durable=False, delivery_limit=-1)

    assert len(caught.value.faults) == 4
    assert pickle.loads(pickle.dumps(caught.value)) == caught.value


@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        ({"name": "amq.mine"}, "belong to the broker"),
        ({"name": "amq.topic"}, "has type topic, not direct"),
        ({"name": "amq.direct", "durable": False}, "cannot have other flags"),
        ({"name": "amq.direct", "arguments": {"a": 1}}, "takes no arguments"),
        ({"name": "e", "alternate_exchange": ""}, "drops every message"),
        (
            {"name": "e", "arguments": {"alternate-exchange": "f"}},
            "give alternate-exchange as alternate_exchange",
        ),
        ({"name": "e", "type": "topics"}, "did you mean 'topic'"),
    ],
)
def test_an_exchange_that_rabbitmq_would_refuse_names_the_remedy(
    exchange: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message):
        Exchange(**exchange)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ({"source": "", "destination": "q"}, "nothing can be bound to the default exchange"),
        ({"source": "e", "destination": ""}, "the destination is empty"),
        ({"source": "e", "destination": "q", "routing_key": "k" * 256}, "longer than 255 bytes"),
        ({"source": "e", "destination": "q", "routing_key": "\ud800"}, "lone surrogate"),
        ({"source": "e", "destination": "q", "destination_kind": "que"}, "did you mean 'queue'"),
    ],
)
def test_a_binding_that_rabbitmq_would_refuse_names_the_remedy(binding: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Binding(**binding)


def test_the_repr_leaves_defaults_out() -> None:
    assert repr(Queue("q", max_length=3)) == "Queue('q', max_length=3)"
    assert repr(Exchange("e")) == "Exchange('e')"
    assert Binding("e", "q").destination_kind is DestinationKind.QUEUE
