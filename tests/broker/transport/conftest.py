"""Transports that are closed at the end of their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport.rabbitmq import Address, RabbitTransport, TransportOptions

MakeTransport = Callable[..., RabbitTransport]
MakeMessage = Callable[..., OutgoingMessage]


def address_of(url: str) -> Address:
    """A URL taken apart, as `amqp_tasks.settings` would."""
    parts = urlsplit(url)
    assert parts.hostname
    return Address(
        host=parts.hostname,
        port=parts.port or 5672,
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(parts.path[1:]) or "/",
        tls=parts.scheme == "amqps",
    )


@pytest.fixture
def make_transport() -> Iterator[MakeTransport]:
    """`make_transport(url, url…, clock=…, option=value…)`."""
    made: list[RabbitTransport] = []

    def make(*urls: str, clock: Clock = SYSTEM_CLOCK, **options: Any) -> RabbitTransport:
        addresses = tuple(address_of(url) for url in urls)
        transport = RabbitTransport(TransportOptions(addresses=addresses, **options), clock=clock)
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close(timeout=1.0)


@pytest.fixture
def message() -> MakeMessage:
    """`message(routing_key, id, …)`: a persistent message whose body is its id."""

    def make(
        routing_key: str,
        message_id: object = "1",
        *,
        exchange: str = "",
        body: bytes | None = None,
        **more: Any,
    ) -> OutgoingMessage:
        return OutgoingMessage(
            exchange=exchange,
            routing_key=routing_key,
            body=str(message_id).encode() if body is None else body,
            properties=Properties(correlation_id=str(message_id), **more),
        )

    return make
