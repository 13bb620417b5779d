"""The types of the conformance suite's fixtures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from amqp_routing import Topology
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import Consumer, Transport
from support.collector import Collector

__all__ = ("Consume", "Door", "Message")


class Consume(Protocol):
    """What the `consume` fixture is."""

    def __call__(
        self,
        *queue_names: str,
        prefetch: int = 10,
        no_ack: bool = False,
        exclusive: bool = False,
        paused_queues: Collection[str] = (),
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
        settle_delay: float = 0.002,
        declare: Topology | None = None,
        transport: Transport | None = None,
    ) -> tuple[Consumer, Collector]:
        """Consume and collect."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """One broker, by one of the transports.

    Attributes:
        kind: `memory` or `rabbitmq`.
        open: make a transport to it, with these settings; closed after the test.
        drop_connections: have the broker close all connections, of which at least one publishes and one consumes.
    """

    kind: str
    open: Callable[..., Transport]
    drop_connections: Callable[[], None]


class Message(Protocol):
    """What the `message` fixture is."""

    def __call__(
        self,
        body: bytes = b"",
        routing_key: str = "q",
        *,
        exchange: str = "",
        mandatory: bool = True,
        **properties: Any,
    ) -> OutgoingMessage:
        """A message."""
        ...
