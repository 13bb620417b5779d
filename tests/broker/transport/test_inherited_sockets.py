"""Sockets that are closed with what uses them: in a child that is forked, and when the I/O thread dies."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import eventually
from support.scripted_broker import Fault, ScriptedBroker

Make = Callable[..., RabbitTransport]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def to_port(port: int) -> dict[int, str]:
    """Descriptors of this process's sockets to a port, and what they are."""
    found = psutil.Process().net_connections("tcp")
    return {each.fd: _what(each.fd) for each in found if each.raddr and each.raddr.port == port}


def port_of(listener: socket.socket) -> int:
    """Where it listens."""
    return int(listener.getsockname()[1])


def _what(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def inherited(sockets: dict[int, str]) -> int:
    """How many of them a child has that is forked now."""
    child = os.fork()
    if child == 0:
        status = 255
        try:
            signal.alarm(10)
            status = sum(_what(descriptor) == what for descriptor, what in sockets.items())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextmanager
def heard(deaf: socket.socket) -> Generator[None]:
    """Once the client has said the first thing."""
    connection, _ = deaf.accept()
    with connection:
        assert connection.recv(1)
        yield


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server that takes no connection any more."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        yield port_of(listener)


Attempt = Callable[..., tuple[RabbitTransport, dict[int, str]]]


@pytest.fixture
def attempt(make_transport: Make) -> Attempt:
    """`attempt(port, tls=…)`: a transport that is connecting, and the sockets of that."""

    def begin(port: int, *, tls: bool = False) -> tuple[RabbitTransport, dict[int, str]]:
        before = to_port(port)
        transport = make_transport(f"{'amqps' if tls else 'amqp'}://127.0.0.1:{port}", connection_timeout=20)
        core = transport._started()
        core.loop.put(lambda _none: core.link.need())

        def opened() -> dict[int, str]:
            found = {
                descriptor: what for descriptor, what in to_port(port).items() if descriptor not in before
            }
            assert found
            return found

        return transport, eventually(opened)

    return begin


@pytest.mark.parametrize("tls", [False, True], ids=["amqp", "amqps"])
def test_a_child_has_nothing_of_an_attempt_that_is_not_answered(
    attempt: Attempt, deaf: socket.socket, tls: bool
) -> None:
    _, sockets = attempt(port_of(deaf), tls=tls)

    with heard(deaf):
        assert inherited(sockets) == 0


def test_a_child_has_nothing_of_an_attempt_that_is_not_accepted(attempt: Attempt, full: int) -> None:
    _, sockets = attempt(full)

    assert inherited(sockets) == 0


def die(transport: RabbitTransport) -> None:
    """Have its I/O thread end by an error."""
    core = transport._started()

    def fail() -> None:
        raise RuntimeError("the loop ends by this")

    core.loop.put(lambda _none: core.loop.call_later(0, fail))
    eventually(lambda: not core.thread.is_alive)


@pytest.mark.parametrize("tls", [False, True], ids=["amqp", "amqps"])
def test_an_io_thread_that_dies_closes_the_socket_of_an_attempt_that_is_not_answered(
    attempt: Attempt, deaf: socket.socket, tls: bool
) -> None:
    transport, sockets = attempt(port_of(deaf), tls=tls)

    with heard(deaf):
        die(transport)

        assert not to_port(port_of(deaf)).items() & sockets.items()


def test_an_io_thread_that_dies_closes_the_socket_of_an_attempt_that_is_not_accepted(
    attempt: Attempt, full: int
) -> None:
    transport, sockets = attempt(full)

    die(transport)

    assert not to_port(full).items() & sockets.items()


def test_a_child_has_nothing_of_a_transport_that_is_being_closed(make_transport: Make) -> None:
    with ScriptedBroker() as scripted:
        transport = make_transport(scripted.url)
        transport.open(timeout=10)
        sockets = to_port(urlsplit(scripted.url).port or 0)
        scripted.misbehave("Connection.Close", Fault.NEVER)
        closing = threading.Thread(target=transport.close, name="closing")
        closing.start()
        eventually(lambda: scripted.seen["Connection.Close"] == 1)

        left = inherited(sockets)

        closing.join(10)
        assert sockets
        assert left == 0
