"""pika's I/O services on our loop, without what would end the loop, and with the socket of an attempt at hand."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

from amqp_tasks.transport.rabbitmq._loop import close_descriptor
from amqp_tasks.transport.rabbitmq._pika import PikaServices, linking_socket

__all__ = ("Services",)


class Services(PikaServices):
    """Those of one connection. Owner thread only; `abandon` in a forked child, too."""

    def __init__(self, native_loop: Any) -> None:
        super().__init__(native_loop)
        self._connecting: socket | None = None
        self._linking: Any = None

    def connect_socket(self, sock: socket, resolved_addr: Any, on_done: Callable[[Any], object]) -> Any:
        """See `PikaServices.connect_socket`."""
        self._connecting = sock
        return super().connect_socket(sock, resolved_addr, on_done)

    def abandon(self) -> None:
        """Drop the socket of the last attempt, which may be under way. See `close_descriptor`."""
        for sock in (self._connecting, linking_socket(self._linking)):
            if sock is not None:
                close_descriptor(sock)

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
            self._linking = super().create_streaming_connection(
                protocol_factory, sock, on_done, ssl_context, server_hostname
            )
            return self._linking
        except ValueError as exc:
            if not isinstance(exc.__context__, OSError):
                raise
            error = exc.__context__
            return self.call_later(0, lambda: on_done(error))
