"""Brokers that keep to the protocol's letter, or nearly, and to nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import (
    BrokerOperationError,
    BrokerUnreachable,
    ClosedError,
    MessageTooLarge,
    NotSent,
    QueueNotRunning,
    SendUnknown,
)
from amqp_tasks.message import new_task_id
from support import eventually
from support.scripted_broker import NOT_RUNNING, Fault, ScriptedBroker, confirm_of


@contextmanager
def app_of(broker: ScriptedBroker, *, timeout: float = 15.0) -> Iterator[App]:
    """An app that calls a queue of that broker."""
    app = App("odd", broker=broker.url, task_publish_timeout=timeout)
    try:
        yield app
    finally:
        app.close(timeout=1.0)


def call(app: App, text: str = "", task_id: str = "", **headers: str) -> None:
    app.send_task("task", (text,), task_id=task_id or new_task_id(), ignore_result=True, headers=headers)


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


def test_a_queue_that_does_not_run_yet_is_asked_for_again() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, times=3, reply=NOT_RUNNING)

        call(app)

        assert broker.unsettled("default") == 1


def test_a_message_that_comes_back_from_a_queue_that_does_not_run_yet_is_sent_when_it_does() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        app.calls.destination_of("default")
        app.transport.delete_queue("default")
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, times=3, reply=NOT_RUNNING)

        call(app)

        assert broker.unsettled("default") == 1


def test_a_stream_that_does_not_run_is_not_taken_for_one_that_is_not_there() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        call(app)
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, reply=NOT_RUNNING)

        with pytest.raises(QueueNotRunning, match="see to its node"):
            app.delayed.find()


def test_a_queue_that_does_not_come_up_is_told_with_the_brokers_words() -> None:
    with ScriptedBroker() as broker, app_of(broker, timeout=2.0) as app:
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, reply=NOT_RUNNING)

        with pytest.raises(BrokerOperationError, match="down or inaccessible"):
            call(app)

        assert broker.seen["Queue.Declare"] > 2


def test_a_queue_that_does_not_run_is_not_taken_for_one_that_is_gone() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        call(app)
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, times=1, reply=NOT_RUNNING)

        with pytest.raises(QueueNotRunning, match="down or inaccessible"):
            app.transport.queue_status("default")

        assert app.transport.queue_status("default") is not None
        assert app.transport.queue_status("unknown") is None


def test_a_queue_that_does_not_run_is_not_taken_for_missing_when_it_is_purged() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        broker.misbehave("Queue.Purge", Fault.CLOSE_CHANNEL, reply=NOT_RUNNING)

        with pytest.raises(QueueNotRunning, match="see to its node"):
            app.transport.purge_queue("default")


@pytest.mark.parametrize("end", ["close", "reset"])
def test_who_waits_for_a_queue_to_run_hears_of_the_end_of_all(end: str) -> None:
    with ScriptedBroker() as broker, app_of(broker) as app, ThreadPoolExecutor(1) as pool:
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, reply=NOT_RUNNING)
        caller = pool.submit(call, app)
        eventually(lambda: broker.seen["Queue.Declare"] >= 2)
        if end == "close":
            app.close(timeout=1.0)
        else:
            broker.behave()
            broker.reset_connections()

        error = caller.exception(10)

        assert isinstance(error, ClosedError) if end == "close" else error is None


@pytest.mark.loses("first", "second")
@pytest.mark.parametrize("tag", [2**63 - 1, 0])
def test_a_confirm_of_all_and_more_confirms_what_was_published(tag: int) -> None:
    """Counting up to the broker's number would keep the I/O thread busy for ever."""
    with ScriptedBroker() as broker, app_of(broker) as app:
        broker.misbehave("Basic.Publish", Fault.GARBAGE, garbage=confirm_of(tag, multiple=True))

        call(app, task_id="first")
        call(app, task_id="second")


def test_a_confirm_of_a_message_that_was_not_published_confirms_nothing() -> None:
    with ScriptedBroker() as broker, app_of(broker) as app:
        call(app)  # so that the time of the next one is that of its publish
        broker.misbehave("Basic.Publish", Fault.GARBAGE, garbage=confirm_of(77, multiple=False))

        with pytest.raises(SendUnknown):
            app.send_task("task", ("",), ignore_result=True, timeout=0.5)
