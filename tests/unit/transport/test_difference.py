"""What is said about an argument that the broker has otherwise: the setting that mends it."""

from __future__ import annotations

import pytest

from amqp_tasks.errors import TopologyMismatch
from amqp_tasks.transport._difference import difference


@pytest.mark.parametrize(
    ("queue", "argument", "found", "remedy"),
    [
        ("q", "x-dead-letter-exchange", None, "task_dead_letter_queues=False"),
        ("q", "x-dead-letter-routing-key", None, "task_dead_letter_queues=False"),
        ("q", "x-dead-letter-exchange", "dlx", "dead_letter_exchange='dlx' of the queue in task_queues"),
        ("q.dead", "x-queue-type", "classic", "task_dead_letter_queues=False"),
        (
            "q",
            "x-queue-type",
            "classic",
            "type='classic' of the queue in task_queues (task_default_queue_type='classic' for the default queue, task_create_missing_queue_type='classic' for those that are not in task_queues)",
        ),
        ("q", "x-delivery-limit", 7, "task_delivery_limit=7"),
        ("q", "x-delivery-limit", None, "topology='none' to use it as it is"),
        ("q", "x-max-priority", 5, "task_queue_max_priority=5"),
        ("q", "x-max-priority", None, "task_queue_max_priority=None"),
        ("q", "x-message-ttl", 5500, "message_ttl=5.5 of the queue in task_queues"),
        ("q", "x-expires", "60000", "expires=60.0 of the queue in task_queues"),
        ("q", "x-max-length", None, "max_length=None of the queue in task_queues"),
        ("q", "durable", False, "durable=False of the queue in task_queues"),
        ("q", "x-queue-mode", "lazy", "arguments={'x-queue-mode': 'lazy'} of the queue in task_queues"),
        ("q", "x-queue-mode", None, "arguments={} of the queue in task_queues"),
    ],
)
def test_the_line_ends_with_the_setting_that_agrees_with_the_broker(
    queue: str, argument: str, found: object, remedy: str
) -> None:
    line = difference("queue", queue, argument, wanted="ours", found=found)

    migrate = f"migrate it (amqp-tasks topology migrate {queue})"
    assert line.endswith(f", declared as {argument}=ours: {migrate}, delete it, or set {remedy}")


@pytest.mark.parametrize(
    ("argument", "found", "remedy"),
    [
        (
            "type",
            "topic",
            "type='topic' of the exchange in task_queues (task_default_exchange_type='topic' for the default exchange)",
        ),
        ("alternate-exchange", None, "alternate_exchange=None of the exchange in task_queues"),
        ("internal", True, "internal=True of the exchange in task_queues"),
    ],
)
def test_an_exchange_has_its_own_settings(argument: str, found: object, remedy: str) -> None:
    line = difference("exchange", "e", argument, wanted="ours", found=found)

    assert line.endswith(f": delete it, or set {remedy}")


def test_one_difference_is_the_message_and_several_follow_a_line_that_counts_them() -> None:
    assert str(TopologyMismatch(("one",))) == "one"

    summary, *lines = str(TopologyMismatch(("one", "two"))).splitlines()

    assert summary == "2 arguments on the broker differ from ours (`amqp-tasks topology check` lists all):"
    assert lines == ["one", "two"]
