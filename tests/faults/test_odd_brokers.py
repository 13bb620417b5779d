"""Brokers that keep to the protocol's letter, or nearly, and to nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import BrokerUnreachable, MessageTooLarge, NotSent, SendUnknown
from support.scripted_broker import Fault, ScriptedBroker, confirm_of


@contextmanager
def app_of(broker: ScriptedBroker, *, timeout: float = 15.0) -> Iterator[App]:
    """An app that calls a queue of that broker."""
    app = App("odd", broker=broker.url, task_publish_timeout=timeout)
    try:
        yield app
    finally:
        app.close(timeout=1.0)


def call(app: App, text: str = "", **headers: str) -> None:
    app.send_task("task", (text,), ignore_result=True, headers=headers)


@pytest.mark.parametrize(
    "tune",
    [{"frame_max": 4096}, {"frame_max": 0}, {"heartbeat": 0}, {"channel_max": 0}, {"channel_max": 9}],
    ids=str,
)
def test_whatever_limits_the_broker_wishes_a_large_message_goes_through(tune: dict[str, Any]) -> None:
    with ScriptedBroker(**tune) as broker, app_of(broker) as app:
        call(app, "x" * 500_000)

        status = app.transport.queue_status("default")
    assert status is not None
    assert status.messages == 1


def test_headers_that_are_larger_than_the_brokers_frames_are_refused_at_the_caller() -> None:
    with ScriptedBroker(frame_max=4096) as broker, app_of(broker) as app:
        with pytest.raises(MessageTooLarge, match="exceed the frame size 4088"):
            call(app, large="x" * 5000)

        call(app)


def test_too_few_channels_are_an_error_that_says_so() -> None:
    said = r"no channel is free .*raise the broker's channel_max"
    with (
        ScriptedBroker(channel_max=1) as broker,
        app_of(broker) as app,
        pytest.raises(NotSent, match=said),
    ):
        call(app)


def test_channels_that_do_not_answer_are_given_up_when_they_leave_no_room_for_others() -> None:
    """Each holds its number as long as the connection lives, so that none was left in the end."""
    with ScriptedBroker(channel_max=4) as broker, app_of(broker) as app:
        broker.put("queue")
        broker.misbehave("Queue.Declare", Fault.NEVER)
        for _ in range(5):
            with pytest.raises(BrokerUnreachable):
                app.transport.queue_status("queue", timeout=0.2)
        broker.behave()

        assert app.transport.queue_status("queue") is not None


@pytest.mark.parametrize("tag", [2**63 - 1, 0])
def test_a_confirm_of_all_and_more_confirms_what_was_published(tag: int) -> None:
    """Counting up to the broker's number would keep the I/O thread busy for ever."""
    with ScriptedBroker() as broker, app_of(broker) as app:
        broker.misbehave("Basic.Publish", Fault.GARBAGE, garbage=confirm_of(tag, multiple=True))

        call(app)
        call(app)


def test_a_confirm_of_a_message_that_was_not_published_confirms_nothing() -> None:
    with ScriptedBroker() as broker, app_of(broker, timeout=0.5) as app:
        broker.misbehave("Basic.Publish", Fault.GARBAGE, garbage=confirm_of(77, multiple=False))

        with pytest.raises(SendUnknown):
            call(app)
