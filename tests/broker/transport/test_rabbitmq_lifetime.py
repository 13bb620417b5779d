"""Transports that nobody closed: at the interpreter's end, and when they are forgotten."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from amqp_tasks.errors import PublishError
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._pending import CallbackOutcome
from support import RawClient, Vhost, eventually

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]

FORGETFUL = """
import sys
from urllib.parse import unquote, urlsplit
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport.rabbitmq import Address, RabbitTransport, TransportOptions

parts = urlsplit(sys.argv[1])
address = Address(host=parts.hostname, port=parts.port, user="guest", password="guest", vhost=unquote(parts.path[1:]))
transport = RabbitTransport(TransportOptions(addresses=(address,)))
for number in range(500):
    message = OutgoingMessage(
        exchange="", routing_key="work", body=str(number).encode(), properties=Properties(correlation_id=str(number))
    )
    transport.publish_nowait(message, lambda error: None)
"""


def test_an_interpreter_that_ends_without_close_still_writes_what_was_handed_over(
    vhost: Vhost, raw_client: RawClient
) -> None:
    raw_client.declare("work")

    subprocess.run([sys.executable, "-c", FORGETFUL, vhost.url], check=True, timeout=30)

    assert [int(got.body) for got in raw_client.drain("work")] == list(range(500))


def test_a_message_that_comes_in_while_the_thread_ends_has_its_outcome(
    vhost: Vhost, make_transport: Make, message: Message
) -> None:
    transport = make_transport(vhost.url)
    transport.open(timeout=5)
    core = transport._started()
    outcomes: list[PublishError | None] = []
    late = transport._pending(message("work"), 30.0, CallbackOutcome(outcomes.append))
    transport.close()

    core.loop.put(core.publisher.submit, late)  # as a thread does that got its core before the close

    assert [type(outcome).__name__ for outcome in outcomes] == ["NotSent"]


def test_what_ends_the_io_thread_is_told_to_all_who_wait_and_the_next_use_starts_another(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.url)
    transport.open(timeout=5)
    outcomes: list[PublishError | None] = []
    told = threading.Event()

    def exit_thread(_none: object) -> None:
        transport.publish_nowait(message("work", 1), outcomes.append)
        raise SystemExit

    def on_outcome(error: PublishError | None) -> None:
        outcomes.append(error)
        told.set()

    transport._started().loop.put(exit_thread)
    transport.publish_nowait(message("work", 2), on_outcome)

    assert told.wait(5)
    transport.publish(message("work", 3), timeout=5)
    assert len(outcomes) == 2
    assert raw_client.drain("work")[-1].body == b"3"


def test_an_outcome_callback_that_raises_costs_neither_the_connection_nor_its_neighbours(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    transport = make_transport(vhost.url)
    outcomes: list[PublishError | None] = []

    def on_outcome(error: PublishError | None) -> None:
        outcomes.append(error)
        raise ValueError("a fault in the callback")

    for number in range(20):
        transport.publish_nowait(message("work", number), on_outcome)
    transport.publish(message("work", "last"))

    assert outcomes == [None] * 20
    assert transport.statistics().connects == 1
    assert transport.statistics().resent == 0


def test_a_forgotten_transport_warns_and_ends_its_thread(vhost: Vhost, make_transport: Make) -> None:
    from amqp_tasks.transport.rabbitmq import TransportOptions

    options = make_transport(vhost.url)._options
    assert isinstance(options, TransportOptions)
    transport = RabbitTransport(options)
    transport.open(timeout=5)

    with pytest.warns(ResourceWarning, match="was not closed"):
        del transport

    eventually(_no_io_thread)


def _no_io_thread() -> None:
    assert "amqp-tasks-io" not in {thread.name for thread in threading.enumerate()}


def test_closing_is_bounded_when_the_broker_does_not_answer(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    transport = make_transport("amqp://guest:guest@127.0.0.1:1//")
    outcomes: list[object] = []
    transport.publish_nowait(message("work"), outcomes.append, timeout=60)

    transport.close(timeout=0.5)

    eventually(_no_io_thread)
    assert [type(outcome).__name__ for outcome in outcomes] == ["NotSent"]
