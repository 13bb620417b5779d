"""pika's I/O services on our loop, without what would end the loop."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

from amqp_tasks.transport.rabbitmq._pika import PikaServices

__all__ = ("Services",)


class Services(PikaServices):
    """Owner thread only."""

    def create_streaming_connection(
        self,
        protocol_factory: Any,
        sock: socket,
        on_done: Callable[[Any], object],
        ssl_context: Any = None,
        server_hostname: Any = None,
    ) -> Any:
        """As pika's, but a socket that was reset right after it was connected is a failed attempt like others.

        A proxy whose broker is away does that to each connection. pika raises then, into the loop, which ends by it:
        every connection of the process is lost for the failure of one attempt.

        Raises:
            ValueError: wrong arguments.
        """
        try:
            return super().create_streaming_connection(
                protocol_factory, sock, on_done, ssl_context, server_hostname
            )
        except ValueError as exc:
            if not isinstance(exc.__context__, OSError):
                raise
            error = exc.__context__
            return self.call_later(0, lambda: on_done(error))
