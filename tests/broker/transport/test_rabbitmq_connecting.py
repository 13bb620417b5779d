"""Connecting: what is refused, what is waited for, and how long."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from amqp_tasks.errors import (
    BrokerAccessError,
    BrokerAuthenticationError,
    BrokerConnectionError,
    BrokerUnreachable,
    NotSent,
)
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import SECRET, BrokerNode, Vhost

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]


@pytest.fixture
def mute_url() -> Iterator[str]:
    """A server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}//"


@pytest.fixture
def closed_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}//"


def test_open_tells_who_answered(broker: BrokerNode, vhost: Vhost, make_transport: Make) -> None:
    info = make_transport(vhost.url).open(timeout=5)

    assert info.product == "RabbitMQ"
    assert info.version[: len(broker.version)] == broker.version
    assert ":**@" in info.url


def test_a_wrong_password_is_final_at_once_and_shown_nowhere(
    vhost: Vhost, make_transport: Make, message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    """Row U031."""
    caplog.set_level(logging.DEBUG)
    transport = make_transport(vhost.url_of("guest", SECRET))
    began = time.monotonic()

    with pytest.raises(BrokerAuthenticationError, match="check user name and password") as opened:
        transport.open(timeout=10)
    with pytest.raises(NotSent) as published:
        transport.publish(message("work"), timeout=10)

    assert time.monotonic() - began < 5
    assert isinstance(published.value.__cause__, BrokerAuthenticationError)
    assert SECRET not in "".join((str(opened.value), str(published.value), repr(transport), caplog.text))


@pytest.mark.parametrize("permitted", [False, None], ids=["forbidden", "missing"])
def test_a_virtual_host_one_may_not_enter_is_final_at_once(
    vhost: Vhost, make_transport: Make, permitted: bool | None
) -> None:
    url = f"{vhost.url}-missing" if permitted is None else vhost.limited_url(permitted=False)

    with pytest.raises(BrokerAccessError, match="set_permissions"):
        make_transport(url).open(timeout=10)


def test_nobody_listening_is_unreachable_and_not_sent_at_the_deadline(
    closed_url: str, make_transport: Make, message: Message
) -> None:
    """Row U031."""
    transport = make_transport(closed_url)

    with pytest.raises(BrokerUnreachable, match="refused"):
        transport.open(timeout=0.5)
    with pytest.raises(NotSent, match="refused") as caught:
        transport.publish(message("work"), timeout=0.5)

    assert isinstance(caught.value.__cause__, BrokerUnreachable)


def test_a_name_that_does_not_resolve_is_unreachable(make_transport: Make) -> None:
    with pytest.raises(BrokerUnreachable):
        make_transport("amqp://guest:guest@no-such-host.invalid//").open(timeout=1)


def test_a_mute_server_costs_one_connection_timeout(
    mute_url: str, vhost: Vhost, make_transport: Make
) -> None:
    transport = make_transport(mute_url, vhost.url, connection_timeout=0.5)
    began = time.monotonic()

    transport.open(timeout=10)

    assert 0.4 < time.monotonic() - began < 3


def test_retries_can_be_bounded(closed_url: str, make_transport: Make) -> None:
    began = time.monotonic()

    with pytest.raises(BrokerUnreachable):
        make_transport(closed_url, connection_max_retries=2).open(timeout=20)

    assert time.monotonic() - began < 5


def test_retries_can_be_forbidden(closed_url: str, make_transport: Make) -> None:
    began = time.monotonic()

    with pytest.raises(BrokerUnreachable):
        make_transport(closed_url, connection_retry=False).open(timeout=20)

    assert time.monotonic() - began < 2


def test_the_next_address_is_tried(
    closed_url: str, vhost: Vhost, make_transport: Make, message: Message
) -> None:
    transport = make_transport(closed_url, vhost.url)

    transport.open(timeout=5)

    assert transport.queue_status("work") is None


def test_shuffle_tries_every_address_before_one_for_the_second_time(
    closed_url: str, vhost: Vhost, make_transport: Make
) -> None:
    # With a bound of one round, every order must have found the one address that answers.
    for _ in range(6):
        transport = make_transport(
            closed_url, closed_url, vhost.url, failover_strategy="shuffle", connection_max_retries=1
        )

        assert transport.open(timeout=10).url == transport._options.addresses[2].masked
        transport.close()


def test_a_server_that_speaks_something_else_is_told_apart(make_transport: Make, broker: BrokerNode) -> None:
    port = broker.management_url.rsplit(":", 1)[1].strip("/")

    with pytest.raises(BrokerConnectionError, match=r"AMQP 0-9-1|no answer"):
        make_transport(f"amqp://guest:guest@127.0.0.1:{port}//", connection_timeout=1.0).open(timeout=3)


def test_tls_towards_a_plain_port_says_so(vhost: Vhost, make_transport: Make) -> None:
    with pytest.raises(BrokerUnreachable, match="speaks TLS"):
        make_transport(vhost.url.replace("amqp:", "amqps:"), connection_retry=False).open(timeout=5)


def test_a_broker_that_is_away_is_logged_once_and_not_per_attempt(
    closed_url: str, make_transport: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Row U014."""
    with pytest.raises(BrokerUnreachable):
        make_transport(closed_url).open(timeout=1.5)

    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["WARNING"]
