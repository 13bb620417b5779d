"""The parts of pika that are not public and that this package builds on, in one place and with types.

pika is pinned below its next major version for their sake. At run time the names below are pika's own classes.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING, Any

from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.heartbeat import HeartbeatChecker

__all__ = (
    "PikaConnection",
    "PikaHeartbeat",
    "PikaLoop",
    "PikaServices",
    "is_plain_transport",
    "linking_socket",
)

if TYPE_CHECKING:

    class PikaConnection(SelectConnection):
        """What `FastConnection` uses and overrides."""

        _transport: Any
        _nbio: Any
        _frame_buffer: bytes
        _opened: bool
        _body_max_length: int
        _channels: dict[int, Any]
        params: Any
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

        def _create_heartbeat_checker(self) -> Any: ...
        def _process_frame(self, frame_value: Any) -> None: ...
        def _terminate_stream(self, error: Exception | None) -> None: ...
        def _on_stream_terminated(self, error: Exception | None) -> None: ...

    class PikaLoop(IOLoop):
        """What `DoorLoop` uses and overrides."""

        _poller: Any

        def _get_remaining_interval(self) -> float | None: ...
        def process_timeouts(self) -> None: ...
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

    class PikaServices:
        """What `Services` uses and overrides."""

        def __init__(self, native_loop: Any) -> None: ...
        def call_later(self, delay: float, callback: Callable[[], object]) -> Any: ...
        def connect_socket(
            self, sock: socket, resolved_addr: Any, on_done: Callable[[Any], object]
        ) -> Any: ...
        def create_streaming_connection(
            self,
            protocol_factory: Any,
            sock: socket,
            on_done: Callable[[Any], object],
            ssl_context: Any = None,
            server_hostname: Any = None,
        ) -> Any: ...

else:
    PikaConnection, PikaLoop, PikaHeartbeat = SelectConnection, IOLoop, HeartbeatChecker
    PikaServices = SelectorIOServicesAdapter


def is_plain_transport(transport: Any) -> bool:
    """Whether bytes go to the socket as they are, without TLS."""
    return isinstance(transport, _AsyncPlaintextTransport)


def linking_socket(reference: Any) -> socket | None:
    """The socket of what `create_streaming_connection` has begun, if that goes on: with TLS, another one than it was given."""
    return reference._cancel.__self__._sock if reference is not None else None
