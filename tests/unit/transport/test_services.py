"""What pika's services do with a socket whose peer is gone already."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._services import Services
from support import eventually


def reset_socket() -> socket.socket:
    """A client's socket that was connected and that its server has reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()

    def is_reset() -> bool:
        try:
            client.getpeername()
        except OSError:
            return True
        return False

    eventually(is_reset)
    return client


def test_a_socket_that_was_reset_fails_the_attempt_and_not_the_loop() -> None:
    loop, outcomes = DoorLoop(), list[Any]()

    def on_done(outcome: Any) -> None:
        outcomes.append(outcome)
        loop.stop()

    client = reset_socket()
    Services(loop).create_streaming_connection(lambda: None, client, on_done)
    loop.start()
    loop.close()

    assert [type(each) for each in outcomes] == [OSError]
    assert client.fileno() == -1


def test_wrong_arguments_are_still_errors() -> None:
    loop = DoorLoop()
    client = reset_socket()

    with pytest.raises(ValueError, match="ssl_context"):
        Services(loop).create_streaming_connection(lambda: None, client, print, ssl_context="none")
    loop.close()
