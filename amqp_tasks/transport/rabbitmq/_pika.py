"""The parts of pika that are not public and that this package builds on, in one place and with types.

pika is pinned below its next major version for their sake. At run time the names below are pika's own classes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pika.adapters.select_connection import EPollPoller, IOLoop, SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.heartbeat import HeartbeatChecker

__all__ = (
    "PikaConnection",
    "PikaHeartbeat",
    "PikaLoop",
    "abandon_poller",
    "abandon_transport",
    "abort",
    "adapter_call_later",
    "ask",
    "epoll_of",
    "forget_consumer",
    "interrupt_poll",
    "is_plain_transport",
    "next_timer",
    "read_now",
    "read_slowly",
    "send_now",
    "terminate",
)

if TYPE_CHECKING:

    class PikaConnection(SelectConnection):
        """What `FastConnection` uses and overrides."""

        _transport: Any
        _frame_buffer: bytes
        _opened: bool
        _body_max_length: int
        bytes_sent: int
        bytes_received: int
        frames_sent: int
        frames_received: int

        def __init__(
            self,
            parameters: Any = None,
            on_open_callback: Any = None,
            on_open_error_callback: Any = None,
            on_close_callback: Any = None,
            custom_ioloop: Any = None,
            internal_connection_workflow: bool = True,
        ) -> None: ...
        def add_on_close_callback(self, callback: Callable[[Any, Any], object]) -> None: ...
        def add_on_connection_blocked_callback(self, callback: Callable[[Any, Any], object]) -> None: ...
        def add_on_connection_unblocked_callback(self, callback: Callable[[Any, Any], object]) -> None: ...
        def channel(self, channel_number: int | None = None, on_open_callback: Any = None) -> Any: ...
        def _proto_connection_made(self, transport: Any) -> None: ...
        def _on_connection_workflow_done(self, conn_or_exc: Any) -> None: ...
        def _on_data_available(self, data_in: bytes) -> None: ...

        server_properties: Any

        @property
        def ioloop(self) -> Any: ...

        def _create_heartbeat_checker(self) -> Any: ...
        def _process_frame(self, frame_value: Any) -> None: ...
        def _terminate_stream(self, error: Exception | None) -> None: ...
        def _adapter_call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...

    class PikaLoop(IOLoop):
        """What `DoorLoop` uses and overrides."""

        _poller: Any
        _timer: Any
        _callbacks: Any

        def _get_remaining_interval(self) -> float | None: ...
        def activate_poller(self) -> None: ...
        def process_timeouts(self) -> None: ...
        def remove_handler(self, fd: int) -> None: ...
        def call_later(self, delay: float, callback: Callable[[], object]) -> Any: ...
        def remove_timeout(self, timeout_handle: Any) -> None: ...

    class PikaHeartbeat:
        """What `_Heartbeat` uses and overrides."""

        _connection: Any
        _timeout: float
        _idle_byte_intervals: int
        _check_timer: Any

        def __init__(self, connection: Any, timeout: float) -> None: ...
        def _check_heartbeat(self) -> None: ...
        def _update_counters(self) -> None: ...
        def _start_check_timer(self) -> None: ...

else:
    PikaConnection, PikaLoop, PikaHeartbeat = SelectConnection, IOLoop, HeartbeatChecker


# --- the loop


def epoll_of(loop: PikaLoop) -> Any:
    """The loop's `select.epoll`; None where pika polls by something else."""
    poller = loop._poller
    return getattr(poller, "_poll", None) if isinstance(poller, EPollPoller) else None


def next_timer(loop: PikaLoop) -> float:
    """When the loop's next timer is due, on the monotonic clock; infinity if there is none."""
    heap = loop._timer._timeout_heap
    return float(heap[0].deadline) if heap else float("inf")


def interrupt_poll(loop: PikaLoop) -> None:
    """Make a poll return that is under way, or else the next. Any thread.

    pika's own `wake_threadsafe` takes a lock, which would dead-lock with a signal handler that publishes. A full pipe wakes
    as well, and a loop that has closed needs no waking.
    """
    with contextlib.suppress(OSError, AttributeError):
        loop._poller._w_interrupt.send(b"X")


def abandon_poller(loop: PikaLoop) -> None:
    """In a forked child: close its descriptors without touching what they share with the parent."""
    poller = loop._poller
    close = getattr(getattr(poller, "_poll", None), "close", None)
    if close is not None:
        # Unregistering would change the parent's epoll set; closing our copy of the descriptor does not.
        close()
    poller._poll = None
    for end in (poller._r_interrupt, poller._w_interrupt):
        if end is not None:
            _close_descriptor(end)
    poller._r_interrupt = poller._w_interrupt = None


# --- the connection


def terminate(connection: PikaConnection, error: Exception) -> None:
    """End the stream without the closing handshake."""
    if connection._transport is not None and not connection.is_closed:
        connection._terminate_stream(error)


def abandon_transport(connection: PikaConnection) -> None:
    """In a forked child: drop the socket without a byte on the wire."""
    if connection._transport is not None and connection._transport._sock is not None:
        _close_descriptor(connection._transport._sock)


def _close_descriptor(sock: Any) -> None:
    """Close a socket's descriptor only: no shutdown, no TLS goodbye."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


def read_now(transport: Any, size: int) -> bytes:
    """What a plain socket has, at most `size` bytes; nothing if it cannot be had: then pika's own read says why."""
    if transport._state != transport._STATE_ACTIVE:
        return b""
    try:
        data: bytes = transport._sock.recv(size)
    except OSError:
        return b""
    return data


def read_slowly(transport: Any) -> None:
    """Let pika read, or find out why that cannot be."""
    transport._on_socket_readable()


def abort(transport: Any, error: Exception) -> None:
    """End a connection over what it brought."""
    if transport._state == transport._STATE_ACTIVE:
        transport._initiate_abort(error)


def send_now(transport: Any, data: bytes) -> int:
    """How many bytes a plain socket took at once; none while earlier ones wait."""
    if transport._tx_buffers or transport._state != transport._STATE_ACTIVE:
        return 0
    try:
        return int(transport._sock.send(data))
    except OSError:
        return 0  # would block, or broken: then the loop's own write reports it


def adapter_call_later(connection: PikaConnection, delay: float, callback: Callable[[], None]) -> Any:
    """A timer of the connection's loop."""
    return connection._adapter_call_later(delay, callback)


# --- channels


def ask(channel: Any, method: Any, on_reply: Callable[[Any], None], replies: Sequence[Any]) -> None:
    """Send a method that has one answer, past what pika itself would do about the answer."""
    channel._rpc(method, on_reply, list(replies))


def forget_consumer(channel: Any, consumer_tag: str) -> None:
    """Have pika forget a consumer that was cancelled by `ask`."""
    channel._cleanup_consumer_ref(consumer_tag)


def is_plain_transport(transport: Any) -> bool:
    """Whether bytes go to the socket as they are, without TLS."""
    return isinstance(transport, _AsyncPlaintextTransport)
