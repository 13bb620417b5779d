"""Publishing to a real RabbitMQ: what each refusal leads to."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from pika.exceptions import NackError

from amqp_routing import Binding, Exchange, ExchangeType, Overflow, Queue, QueueType, Topology
from amqp_tasks.errors import (
    BrokerOperationError,
    ClosedError,
    MessageTooLarge,
    NotSent,
    PublishError,
    PublishNacked,
    UnroutableError,
)
from amqp_tasks.message import HeaderTemplate, OutgoingMessage, Properties
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import BrokerNode, RawClient, Vhost, eventually

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]


def classic(name: str, **more: Any) -> Queue:
    return Queue(name, type=QueueType.CLASSIC, **more)


@pytest.fixture
def transport(vhost: Vhost, make_transport: Make) -> RabbitTransport:
    """A transport with a queue `work`."""
    made = make_transport(vhost.url)
    made.ensure_topology(Topology(queues=(classic("work"),)), mode=TopologyMode.DECLARE)
    return made


def test_promise_1_what_publish_returned_for_is_in_the_queue_with_all_its_properties(
    transport: RabbitTransport, raw_client: RawClient
) -> None:
    properties = Properties(
        content_type="application/json",
        content_encoding="utf-8",
        template=HeaderTemplate({"lang": "py", "task": "a.b"}),
        headers={"id": "1", "retries": 0, "eta": None},
        correlation_id="1",
        reply_to="r",
        priority=3,
        message_id="m",
        type="t",
        app_id="a",
        timestamp=1_700_000_000,
    )

    transport.publish(OutgoingMessage(exchange="", routing_key="work", body=b"[]", properties=properties))

    got = raw_client.get("work")
    assert got.body == b"[]"
    assert got.properties.headers == {"lang": "py", "task": "a.b", "id": "1", "retries": 0, "eta": None}
    assert got.properties.delivery_mode == 2
    names = ("content_type", "content_encoding", "correlation_id", "reply_to", "priority")
    assert [getattr(got.properties, name) for name in names] == [getattr(properties, name) for name in names]
    rest = ("message_id", "type", "app_id", "timestamp")
    assert [getattr(got.properties, name) for name in rest] == [getattr(properties, name) for name in rest]


def test_a_body_of_many_frames_arrives_whole(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    body = os.urandom(700_001)

    transport.publish(message("work", body=body))

    assert raw_client.get("work").body == body


def test_many_messages_keep_their_order(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    outcomes = transport.publish_many(message("work", number) for number in range(5000))

    assert outcomes == [None] * 5000
    assert [int(got.body) for got in raw_client.drain("work")] == list(range(5000))


def test_promise_5_a_message_to_no_queue_is_an_error_that_names_where_it_went(
    transport: RabbitTransport, message: Message
) -> None:
    """Row U030."""
    with pytest.raises(UnroutableError, match="routing key 'nowhere'") as caught:
        transport.publish(message("nowhere", "id-7"))

    assert (caught.value.exchange, caught.value.routing_key, caught.value.message_id) == (
        "",
        "nowhere",
        "id-7",
    )


def test_promise_5_a_deleted_queue_that_was_declared_is_declared_again(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    raw_client.delete("work")

    transport.publish(message("work", "x"))

    assert raw_client.get("work").body == b"x"


def test_a_deleted_queue_behind_a_declared_exchange_is_declared_and_bound_again(
    vhost: Vhost, make_transport: Make, raw_client: RawClient, message: Message
) -> None:
    transport = make_transport(vhost.url)
    topology = Topology(
        exchanges=(Exchange("jobs", ExchangeType.TOPIC),),
        queues=(classic("mail"),),
        bindings=(Binding(source="jobs", destination="mail", routing_key="mail.#"),),
    )
    transport.ensure_topology(topology, mode=TopologyMode.DECLARE)
    raw_client.delete("mail")

    transport.publish(message("mail.send", "x", exchange="jobs"))

    assert raw_client.get("mail").body == b"x"


def test_returned_messages_find_their_own_outcomes_among_duplicates(
    transport: RabbitTransport, message: Message
) -> None:
    keys = ["work" if number % 3 else "nowhere" for number in range(600)]

    outcomes = transport.publish_many(message(key, "same-id") for key in keys)

    assert [type(outcome) for outcome in outcomes] == [
        type(None) if key == "work" else UnroutableError for key in keys
    ]


def test_only_messages_to_an_unknown_exchange_fail_and_all_others_are_stored_once(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    wrong = {number for number in range(300) if number % 7 == 0}

    outcomes = transport.publish_many(
        message("work", number, exchange="no-such" if number in wrong else "") for number in range(300)
    )

    assert {number for number, outcome in enumerate(outcomes) if outcome is not None} == wrong
    assert all(isinstance(outcomes[number], UnroutableError) for number in wrong)
    assert {int(got.body) for got in raw_client.drain("work")} == set(range(300)) - wrong


def test_a_full_queue_that_rejects_gives_nacked(vhost: Vhost, make_transport: Make, message: Message) -> None:
    transport = make_transport(vhost.url)
    full = classic("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    transport.ensure_topology(Topology(queues=(full,)), mode=TopologyMode.DECLARE)

    outcomes = transport.publish_many(message("full", number) for number in range(20))

    assert {type(outcome) for outcome in outcomes[2:]} == {PublishNacked}


def test_a_message_that_a_queue_refuses_for_a_moment_is_sent_again(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    """As a quorum queue refuses while it elects a leader; this one is full meanwhile."""
    raw_client.declare("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    with suppress(NackError):
        while True:
            raw_client.publish("full")
    with ThreadPoolExecutor(1) as caller:
        sent = caller.submit(transport.publish, message("full"))
        eventually(lambda: transport.statistics().resent > 0)

        raw_client.purge("full")

        assert sent.result(10) is None


def test_an_invalid_property_fails_only_its_message(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    outcomes = transport.publish_many(
        message("work", number, expiration="soon" if number == 4 else None) for number in range(9)
    )

    assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [4]
    assert isinstance(outcomes[4], NotSent)
    assert isinstance(outcomes[4].__cause__, BrokerOperationError)
    assert {int(got.body) for got in raw_client.drain("work")} == set(range(9)) - {4}


def test_too_large_a_body_is_refused_before_it_is_sent(transport: RabbitTransport, message: Message) -> None:
    with pytest.raises(MessageTooLarge, match="max_message_bytes"):
        transport.publish(message("work", body=bytes(17 * 1024 * 1024)))


def test_the_brokers_own_size_limit_fails_only_the_message_that_is_too_large(
    broker: BrokerNode, vhost: Vhost, make_transport: Make, message: Message
) -> None:
    """Row U029."""
    limit = 16 * 1024 * 1024 if broker.version >= (4, 0) else 128 * 1024 * 1024
    transport = make_transport(vhost.url, max_message_bytes=10**9)
    transport.ensure_topology(Topology(queues=(classic("work"),)), mode=TopologyMode.DECLARE)

    outcomes = transport.publish_many(
        message("work", number, body=bytes(limit + 1) if number == 1 else b"x") for number in range(3)
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), MessageTooLarge, type(None)]


def test_no_permission_to_write_is_not_sent_because_of_the_brokers_answer(
    vhost: Vhost, make_transport: Make, raw_client: RawClient, message: Message
) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.limited_url(write="^other$"))

    with pytest.raises(NotSent) as caught:
        transport.publish(message("work"), timeout=10)

    assert isinstance(caught.value.__cause__, BrokerOperationError)
    assert caught.value.__cause__.reply_code == 403


def test_promise_17_64_threads_get_each_its_own_outcome(transport: RabbitTransport, message: Message) -> None:
    wrong: list[str] = []

    def publish_some(thread: int) -> None:
        for number in range(20):
            name, key = f"{thread}.{number}", "nowhere" if number % 5 == 0 else "work"
            try:
                transport.publish(message(key, name))
                failed = ""
            except UnroutableError as exc:
                failed = exc.message_id
            if failed != (name if key == "nowhere" else ""):
                wrong.append(name)

    threads = [threading.Thread(target=publish_some, args=(thread,)) for thread in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not wrong
    assert transport.queue_status("work").messages == 64 * 16  # type: ignore[union-attr]


def _publish_in_child(transport: RabbitTransport, make: Message, count: int) -> None:
    for number in range(count):
        transport.publish(make("work", f"child-{number}"))
    transport.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_promise_17_parent_and_forked_children_publish_at_the_same_time(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    """Row U034."""
    transport.publish(message("work", "before"))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_publish_in_child, args=(transport, message, 100)) for _ in range(2)]

    for child in children:
        child.start()
    for number in range(300):
        transport.publish(message("work", f"parent-{number}"))
    for child in children:
        child.join(20)

    assert [child.exitcode for child in children] == [0, 0]
    assert len(raw_client.drain("work")) == 1 + 300 + 200
    assert transport.statistics().connects == 1


def test_publish_from_a_callback_raises_instead_of_waiting_for_itself(
    transport: RabbitTransport, message: Message
) -> None:
    raised: list[BaseException] = []
    is_done = threading.Event()

    def on_outcome(_error: PublishError | None) -> None:
        try:
            transport.publish(message("work"))
        except RuntimeError as exc:
            raised.append(exc)
        is_done.set()

    transport.publish_nowait(message("work"), on_outcome)

    assert is_done.wait(5)
    assert "publish_nowait" in str(raised[0])


def test_close_waits_for_outstanding_confirms(
    transport: RabbitTransport, raw_client: RawClient, message: Message
) -> None:
    outcomes: list[PublishError | None] = []
    for number in range(500):
        transport.publish_nowait(message("work", number), outcomes.append)

    transport.close(timeout=10)

    assert outcomes == [None] * 500
    assert len(raw_client.drain("work")) == 500


def test_a_closed_transport_refuses_everything(transport: RabbitTransport, message: Message) -> None:
    transport.close()
    transport.close()

    with pytest.raises(ClosedError):
        transport.publish(message("work"))
