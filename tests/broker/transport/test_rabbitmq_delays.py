"""The timer wheel on a real RabbitMQ: what is declared, and what happens when it is missing or different."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.errors import NotSent, TopologyMismatch
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport, _wheel
from support import RawClient, TcpProxy, Vhost
from support.fake_deliveries import FakeClock

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]
DECLARE = TopologyMode.DECLARE


@pytest.fixture
def transport(vhost: Vhost, make_transport: Make) -> RabbitTransport:
    made = make_transport(vhost.url)
    made.ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)
    return made


def delayed(message: OutgoingMessage, seconds: float) -> OutgoingMessage:
    message.delay = seconds
    return message


def wheel_queues(vhost: Vhost) -> dict[str, dict[str, object]]:
    return {each["name"]: each["arguments"] for each in vhost.queues() if each["name"] != "q"}


def test_no_delayed_message_is_long_on_its_way_where_many_are_sent_so_that_its_wait_begins_soon(
    vhost: Vhost, make_transport: Make, message: Message
) -> None:
    clock, ahead = FakeClock(), list[int]()
    made = make_transport(vhost.url, clock=clock)
    made.ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)

    def messages() -> Iterator[OutgoingMessage]:
        for number in range(3000):
            # As many messages are on their way at most as milliseconds have passed for the oldest.
            clock.seconds += 0.001
            ahead.append(number - made.statistics().confirmed)
            yield delayed(message("q", number), 600.0)

    assert set(made.publish_many(messages())) == {None}
    assert max(ahead) <= 152


def test_a_broker_that_falls_silent_costs_many_delayed_messages_a_few_deadlines_not_one_for_some_at_a_time(
    vhost: Vhost, proxy: TcpProxy, make_transport: Make, message: Message
) -> None:
    made = make_transport(proxy.url_for(vhost.url))
    made.ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)
    taken = list[float]()

    def messages() -> Iterator[OutgoingMessage]:
        for number in range(2000):
            taken.append(time.monotonic())
            yield delayed(message("q", number), 600.0)

    made.publish(delayed(message("q"), 600.0))
    proxy.blackhole()

    outcomes = made.publish_many(messages(), timeout=1.0)

    assert None not in outcomes
    assert sum(later - earlier > 0.5 for earlier, later in pairwise(taken)) <= 3


def test_only_the_queues_of_the_digits_in_use_are_declared(
    vhost: Vhost, transport: RabbitTransport, message: Message
) -> None:
    """Rows B034, U044."""
    outcomes = transport.publish_many(delayed(message("q", number), 0x203) for number in range(500))
    transport.publish(delayed(message("q"), 0x3))

    assert set(outcomes) == {None}
    shared = {
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    upper = {**shared, "x-message-ttl": 0x200 * 1000, "x-dead-letter-exchange": "amqp_tasks.delay.1"}
    lower = {**shared, "x-message-ttl": 3000, "x-dead-letter-exchange": "amqp_tasks.delay.due"}
    found = wheel_queues(vhost)
    assert found.pop("amqp_tasks.delay.stray")["x-queue-type"] == "quorum"
    assert found == {"amqp_tasks.delay.2.2": upper, "amqp_tasks.delay.0.3": lower}


def test_messages_of_high_priority_do_not_hold_others_up(
    transport: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    # In one queue those of high priority stand at its head, and one that is due comes when they are.
    transport.publish(delayed(message("q", "high", priority=9), 1.0))
    transport.publish(delayed(message("q", "high, later", priority=5), 3600.0))
    transport.publish(delayed(message("q", "later", priority=4), 3600.0))

    assert raw_client.get("q").body == b"high"
    assert raw_client.get("amqp_tasks.delay.high.2.e").body == b"high, later"
    assert raw_client.get("amqp_tasks.delay.2.e").body == b"later"


def test_a_returned_message_has_the_wheel_declared_again(
    transport: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    transport.publish(delayed(message("q", "lost"), 3600.0))
    raw_client.delete("amqp_tasks.delay.2.e")

    transport.publish(delayed(message("q", "kept"), 3600.0))

    assert raw_client.get("amqp_tasks.delay.2.e").body == b"kept"


def test_an_entrance_to_the_wheel_that_is_gone_is_declared_again_with_all_behind_it(
    transport: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    transport.publish(delayed(message("q", "before"), 3600.0 + 2))
    raw_client.delete_exchange("amqp_tasks.delay.2.e")
    raw_client.delete_exchange("amqp_tasks.delay.0")

    outcomes = transport.publish_many(
        delayed(message("q", f"after {number}"), 3600.0 + 2) for number in range(2)
    )

    assert list(outcomes) == [None, None]
    bodies = [raw_client.get("amqp_tasks.delay.2.e").body for _ in range(3)]
    assert bodies == [b"before", b"after 0", b"after 1"]
    raw_client.channel.exchange_declare("amqp_tasks.delay.0", passive=True)


def test_a_destination_that_was_declared_here_is_declared_again(
    transport: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    raw_client.delete("q")

    transport.publish(delayed(message("q", "x"), 1.0))

    assert raw_client.get("q").body == b"x"


def test_a_destination_that_was_bound_before_is_bound_again(
    transport: RabbitTransport, message: Message, raw_client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wheel, "TRUST", 0.0)
    transport.ensure_topology(Topology(queues=(Queue("other"),)), mode=DECLARE)
    transport.publish(delayed(message("q", "has the same way but for its end"), 1.0))
    transport.publish(delayed(message("other", "has the same end"), 3600.0))
    transport.delete_queue("other")
    transport.ensure_topology(Topology(queues=(Queue("other"),)), mode=DECLARE)

    transport.publish(delayed(message("other", "x"), 1.0))

    assert raw_client.get("other").body == b"x"


def test_a_wheel_that_cannot_be_declared_refuses_the_message_and_no_other(
    transport: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    alien = Queue("amqp_tasks.delay.0.5", type=QueueType.CLASSIC)
    transport.ensure_topology(Topology(queues=(alien,)), mode=DECLARE)

    outcomes = transport.publish_many(
        [delayed(message("q", "a"), 5.0), message("q", "b"), delayed(message("q", "c"), 1.0)]
    )

    assert isinstance(outcomes[0], NotSent)
    assert isinstance(outcomes[0].__cause__, TopologyMismatch)
    assert list(outcomes[1:]) == [None, None]
    assert [raw_client.get("q").body, raw_client.get("q").body] == [b"b", b"c"]


def test_the_rights_that_the_security_page_names_are_enough(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    make_transport(vhost.url).ensure_topology(Topology(queues=(Queue("q"),)), mode=DECLARE)
    own = r"^amqp_tasks\.(reply|delay)\..*"

    url = vhost.limited_url(configure=own, write=r"^(amq\.default|amqp_tasks\.delay\..*|q)$", read=own)
    make_transport(url).publish(delayed(message("q", "x"), 17.0))

    assert raw_client.depth("amqp_tasks.delay.1.1") == 1
