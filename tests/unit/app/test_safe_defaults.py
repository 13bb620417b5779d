"""What an app without a single setting declares and sends is safe."""

from __future__ import annotations

from amqp_routing import DeadLetterStrategy, Overflow, Queue, QueueType
from amqp_tasks import App
from amqp_tasks.message import TaskTemplate, journal_queue
from amqp_tasks.transport._delay import wheel_entry


def _wheel() -> tuple[Queue, ...]:
    return wheel_entry(0x123456, "", "q").topology().queues


def test_nothing_has_to_be_switched_on() -> None:
    """Row U086: late acks, quorum queues, dead letters, JSON alone; confirms and mandatory cannot be switched off."""
    settings = App("proj").settings

    assert settings.task.acks_late
    assert settings.task.dead_letter_queues
    assert settings.task.default_queue_type == settings.task.create_missing_queue_type == "quorum"
    assert tuple(settings.app.accept_content) == ("json",)


def test_every_quorum_task_queue_has_a_delivery_limit_and_somewhere_to_dead_letter_to() -> None:
    """Rows R01, B033: without the limit RabbitMQ 4 takes 20, and without the exchange it drops what is beyond."""
    app = App("proj", task_queues=["mail", "x"], task_routes={"t": "routed"})
    dead = {f"{name}.dead" for name in app.topology.queue_names}
    queues = [queue for queue in app.topology.queues if queue.name not in dead]

    assert {queue.name for queue in queues} == {"mail", "x", "routed", "default"}
    for queue in queues:
        assert queue.type is QueueType.QUORUM
        assert queue.delivery_limit == 50
        assert (queue.dead_letter_exchange, queue.dead_letter_routing_key) == ("", f"{queue.name}.dead")
        assert app.topology.queue(f"{queue.name}.dead") is not None


def test_all_that_we_declare_is_durable_and_goes_with_nobody() -> None:
    """Row R09: RabbitMQ 4.3 denies queues that are neither durable nor exclusive."""
    queues = (*App("proj").topology.queues, *_wheel(), journal_queue(max_age=3600))

    assert all(queue.durable and not queue.auto_delete for queue in queues)


def test_the_wheel_hands_over_at_least_once() -> None:
    """Row R11: which needs a quorum queue that refuses rather than drops, and an exchange."""
    waiting = [queue for queue in _wheel() if queue.message_ttl is not None]

    assert len(waiting) == 6
    for queue in waiting:
        assert queue.type is QueueType.QUORUM
        assert queue.dead_letter_strategy is DeadLetterStrategy.AT_LEAST_ONCE
        assert queue.overflow is Overflow.REJECT_PUBLISH
        assert queue.dead_letter_exchange
        assert queue.expires is None


def test_messages_are_persistent() -> None:
    """Row R12: so are what becomes of them in dead letters and the wheel, which keep the mode."""
    message = TaskTemplate("t").build(exchange="", routing_key="q")

    assert message.properties.delivery_mode == 2
    assert message.mandatory
