"""A `SelectConnection` that reads deliveries and confirms, and writes publishes and acks, by hand.

Content (`basic.deliver`, `basic.return`) and confirms (`basic.ack`, `basic.nack`) on channels with a sink go straight
from the receive buffer to that sink; every other frame goes to pika unchanged. The counters that pika's
heartbeat checker watches (`bytes_received`, `frames_received`) are kept as pika would.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

from pika import exceptions as pika_errors
from pika import frame as pika_frame

from amqp_tasks.errors import EncodeError
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._contract import Delivery
from amqp_tasks.transport._delay import is_of_wheel
from amqp_tasks.transport.rabbitmq._codec import decode_properties, encode_properties, short_string
from amqp_tasks.transport.rabbitmq._loop import close_descriptor
from amqp_tasks.transport.rabbitmq._pika import PikaConnection, PikaHeartbeat, is_plain_transport

__all__ = (
    "ChannelSink",
    "FastConnection",
    "FastDelivery",
    "Returned",
    "ack_frame",
    "body_frames",
    "encode_head",
    "nack_frame",
)

FRAME_END = 0xCE
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER, _RETURN, _ACK, _REJECT, _NACK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C005A, 0x003C0078
# Below malloc's threshold: a larger buffer would be mapped, shrunk and unmapped again for each read.
_MAX_RECV_BYTES = 96 * 1024

_read_frame = Struct(">BHL").unpack_from
_read_u32 = Struct(">L").unpack_from
_read_u64 = Struct(">Q").unpack_from
_pack_frame = Struct(">BHL").pack
_pack_ack = Struct(">BHLLQBB").pack
_pack_publish = Struct(">LH").pack
_pack_content = Struct(">HHQ").pack
_FRAME_END = bytes((FRAME_END,))
_FRAME_STARTS = frozenset(
    (b"\x01", b"\x02", b"\x03", b"\x08", b"A")
)  # the last is of a header: another version


class FastDelivery(Delivery):
    """A delivery whose properties are decoded when first asked for."""

    __slots__ = ("_header", "_properties", "is_settled")

    def __init__(self) -> None:
        self._properties: Properties | None = None
        self._header = b""
        self.is_settled = False
        self.body = b""

    @property
    def properties(self) -> Properties:
        """See `Delivery.properties`."""
        if self._properties is None:
            self._properties = decode_properties(self._header)
        return self._properties


class Returned(NamedTuple):
    """A `basic.return`."""

    reply_code: int
    reply_text: str
    exchange: str
    routing_key: str
    header: bytes
    body: bytes


class ChannelSink:
    """What one channel does with its content and confirms. Owner thread only.

    Subclasses override `on_deliveries`, `on_returned` and `on_confirm`.
    """

    def __init__(self, *, epoch: int = 0) -> None:
        self.epoch = epoch
        self.queue_names: dict[bytes, str] = {}
        self.batch: list[FastDelivery] = []
        self._current: FastDelivery | Returned | None = None
        self._remaining = 0
        self._chunks: list[bytes] = []

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        """All deliveries of one read."""

    def on_returned(self, returned: Returned) -> None:
        """One `basic.return`."""

    def on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        """One confirm from the broker."""

    def hand_out(self) -> None:
        """Pass on what was gathered."""
        if self.batch:
            batch, self.batch = self.batch, []
            self.on_deliveries(batch)

    def start_delivery(self, data: bytes, at: int) -> None:
        """A `basic.deliver` whose arguments begin at `at`."""
        delivery = FastDelivery()
        stop = at + 1 + data[at]
        delivery.queue_name = self.queue_names.get(data[at + 1 : stop], "")
        delivery.delivery_tag = _read_u64(data, stop)[0]
        delivery.redelivered = bool(data[stop + 8])
        at = stop + 9
        stop = at + 1 + data[at]
        # Names that are not UTF-8 must not break the connection: the message would come again for ever.
        delivery.exchange = str(data[at + 1 : stop], "utf-8", "replace")
        at = stop
        stop = at + 1 + data[at]
        delivery.routing_key = str(data[at + 1 : stop], "utf-8", "replace")
        if delivery.exchange and is_of_wheel(delivery.exchange):
            # It was meant for this queue; which way it came when it was due is nobody's business.
            delivery.exchange, delivery.routing_key = "", delivery.queue_name
        delivery.epoch = self.epoch
        self._current = delivery

    def start_return(self, data: bytes, at: int) -> None:
        """A `basic.return` whose arguments begin at `at`."""
        code = int.from_bytes(data[at : at + 2], "big")
        at += 2
        texts: list[str] = []
        for _ in range(3):
            stop = at + 1 + data[at]
            texts.append(str(data[at + 1 : stop], "utf-8", "replace"))
            at = stop
        self._current = Returned(code, texts[0], texts[1], texts[2], b"", b"")

    def header(self, payload: bytes) -> None:
        """A content header: class, weight, size, then flags and properties."""
        self._remaining = _read_u64(payload, 4)[0]
        current = self._current
        if isinstance(current, FastDelivery):
            current._header = payload[12:]
        elif current is not None:
            self._current = current._replace(header=payload[12:])
        if not self._remaining:
            self._finish(b"")

    def content(self, payload: bytes) -> None:
        """A body frame."""
        size = len(payload)
        if size == self._remaining and not self._chunks:
            self._finish(payload)
            return
        if size > self._remaining:
            raise pika_errors.BodyTooLongError(size, self._remaining)
        self._chunks.append(payload)
        self._remaining -= size
        if not self._remaining:
            chunks, self._chunks = self._chunks, []
            self._finish(b"".join(chunks))

    def _finish(self, body: bytes) -> None:
        current, self._current = self._current, None
        self._remaining = 0
        if isinstance(current, FastDelivery):
            current.body = body
            self.batch.append(current)
        elif current is not None:
            self.on_returned(current._replace(body=body))


class _Heartbeat(PikaHeartbeat):
    """Ends a silent connection after two intervals at the latest, one and a half at the earliest.

    pika looks once per interval plus five seconds, so that it may take it two of those to notice.
    """

    CHECKS_PER_INTERVAL = 2

    @property
    def connection_is_idle(self) -> bool:
        """Whether the last checks all saw nothing arrive.

        The silence began up to one check before the first of them.
        """
        return self._idle_byte_intervals >= 2 * self.CHECKS_PER_INTERVAL - 1

    def _start_check_timer(self) -> None:
        self._update_counters()
        self._check_timer = self._connection._adapter_call_later(
            self._timeout / self.CHECKS_PER_INTERVAL, self._check_heartbeat
        )


_MAX_CHANNELS = 65_535


class FastConnection(PikaConnection):
    """See the module's docstring. Owner thread only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sinks: dict[int, ChannelSink] = {}
        self.silent_channels = 0
        """Channels given up because they did not answer; their numbers are taken until the connection ends."""
        self.when_gone: set[Callable[[], None]] = set()
        """Called once the connection has ended, after what pika tells: it tells a channel nothing whose number another has taken."""
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        # pika reads 4 KiB at a time; one large read per event makes larger batches with fewer system calls.
        transport._MAX_RECV_BYTES = _MAX_RECV_BYTES
        self._is_plain = is_plain_transport(transport)
        if self._is_plain:
            transport._MAX_CONSUME_BYTES = (
                1  # no second read that only ends in EAGAIN: the poll is level-triggered
            )
        super()._proto_connection_made(transport)

    def _on_stream_terminated(self, error: Exception | None) -> None:
        super()._on_stream_terminated(error)
        waiting, self.when_gone = self.when_gone, set()
        for tell in waiting:
            tell()

    def _create_heartbeat_checker(self) -> Any:
        interval: Any = self.params.heartbeat  # negotiated by now
        return _Heartbeat(self, interval) if interval else None

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # pika 1.4 reports an attempt that was closed by us with the exception's class, and then fails over it.
        if isinstance(conn_or_exc, type):
            conn_or_exc = conn_or_exc()
        super()._on_connection_workflow_done(conn_or_exc)

    def _next_channel_number(self) -> int:
        """The lowest free number but 1, which the channel that publishes or consumes has, also while it is being opened anew."""
        limit = int(self.params.channel_max or _MAX_CHANNELS)
        number = next((number for number in range(2, limit + 1) if number not in self._channels), None)
        if number is None:
            raise pika_errors.NoFreeChannels
        return number

    @property
    def has_channels(self) -> bool:
        """Whether any channel is open on it, or about to open or close."""
        return bool(self._channels)

    @property
    def body_max(self) -> int:
        """The largest body part of one frame, as negotiated."""
        return int(self._body_max_length)

    @property
    def unwritten(self) -> int:
        """Bytes that the socket has not taken yet."""
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    def emit(self, data: bytes, frames: int) -> None:
        """Write complete frames: at once if the socket takes them, the rest when it is writable."""
        transport = self._transport
        if transport is None or not self.is_open:
            return
        self.bytes_sent += len(data)
        self.frames_sent += frames
        if self._is_plain and not transport._tx_buffers and transport._state == transport._STATE_ACTIVE:
            try:
                sent = transport._sock.send(data)
            except OSError:
                sent = 0  # would block, or broken: then the loop's own write reports it
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    @property
    def has_written(self) -> bool:
        """Whether the socket has taken all that was emitted; or never will."""
        return self._transport is None or not self.is_open or not self._transport._tx_buffers

    def abandon(self) -> None:
        """Drop the socket without a byte on the wire, also that of an attempt under way. See `close_descriptor`."""
        self._nbio.abandon()
        if self._transport is not None and self._transport._sock is not None:
            close_descriptor(self._transport._sock)

    def _on_data_available(self, data_in: bytes) -> None:
        if not self._opened:
            if not self._frame_buffer and data_in[:1] not in _FRAME_STARTS:
                # pika would wait for a frame as long as its second to fifth letter say.
                raise pika_errors.IncompatibleProtocolError(f"the answer begins with {data_in[:8]!r}")
            super()._on_data_available(data_in)
            return
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        used = self._read_frames(data)
        self.bytes_received += used
        for sink in tuple(self.sinks.values()):
            sink.hand_out()
        if self._opened and used < len(data):
            self._frame_buffer = data[used:] if used else data

    def _read_frames(self, data: bytes) -> int:
        """Dispatch all whole frames; returns how many bytes they took."""
        sinks = self.sinks
        at, total = 0, len(data)
        while at + 8 <= total:
            kind, channel, size = _read_frame(data, at)
            end = at + size + 8
            if size > self._body_max_length:
                # Not waited for: what claims to be gigabytes is no frame, and would be gathered in memory.
                raise pika_errors.InvalidFrameError(f"a frame of {size} bytes, {self.body_max} are agreed")
            if end > total:
                break
            if data[end - 1] != FRAME_END:
                raise pika_errors.InvalidFrameError("Invalid FRAME_END marker")
            sink = sinks.get(channel)
            if sink is None or kind > _BODY or not self._read_own(sink, kind, data, at, end):
                if sink is not None:
                    sink.hand_out()  # a close or cancel must not overtake the deliveries before it
                self._process_frame(pika_frame.decode_frame(data[at:end])[1])
            at = end
        return at

    def _read_own(self, sink: ChannelSink, kind: int, data: bytes, at: int, end: int) -> bool:
        if kind == _BODY:
            sink.content(data[at + 7 : end - 1])
        elif kind == _HEADER:
            sink.header(data[at + 7 : end - 1])
        else:
            method = _read_u32(data, at + 7)[0]
            if method == _DELIVER:
                sink.start_delivery(data, at + 11)
            elif method == _ACK:
                sink.on_confirm(_read_u64(data, at + 11)[0], bool(data[at + 19]), False)
            elif method == _NACK:
                sink.on_confirm(_read_u64(data, at + 11)[0], bool(data[at + 19] & 1), True)
            elif method == _RETURN:
                sink.start_return(data, at + 11)
            else:
                return False
        self.frames_received += 1
        return True


_publish_frames: dict[tuple[int, str, str, bool], bytes] = {}
_MAX_PUBLISH_FRAMES = 4096


def _publish_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    key = (channel, exchange, routing_key, mandatory)
    found = _publish_frames.get(key)
    if found is None:
        if len(_publish_frames) >= _MAX_PUBLISH_FRAMES:
            _publish_frames.clear()
        names = short_string(exchange) + short_string(routing_key)
        payload = _pack_publish(0x003C0028, 0) + names + (b"\x01" if mandatory else b"\x00")
        found = _pack_frame(_METHOD, channel, len(payload)) + payload + _FRAME_END
        _publish_frames[key] = found
    return found


def encode_head(channel: int, message: OutgoingMessage) -> bytes:
    """Method and header frame of a publish. Any thread.

    Raises:
        EncodeError: a property or header that AMQP cannot hold.
    """
    try:
        payload = _pack_content(60, 0, len(message.body)) + encode_properties(message.properties)
        method = _publish_frame(channel, message.exchange, message.routing_key, message.mandatory)
    except (ValueError, struct_error) as exc:
        raise EncodeError(f"a message property or name does not fit into AMQP: {exc}") from exc
    return b"".join(
        (
            method,
            _pack_frame(_HEADER, channel, len(payload)),
            payload,
            _FRAME_END,
        )
    )


def body_frames(channel: int, body: bytes, body_max: int, pieces: list[bytes]) -> int:
    """Append the body's frames to `pieces`; returns how many."""
    size = len(body)
    if size <= body_max:
        if size:
            pieces += (_pack_frame(_BODY, channel, size), body, _FRAME_END)
            return 1
        return 0
    count = 0
    for start in range(0, size, body_max):
        part = body[start : start + body_max]
        pieces += (_pack_frame(_BODY, channel, len(part)), part, _FRAME_END)
        count += 1
    return count


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """A `basic.ack`."""
    return _pack_ack(_METHOD, channel, 13, _ACK, tag, multiple, FRAME_END)


def reject_frame(channel: int, tag: int) -> bytes:
    """A `basic.reject` that requeues; it has no `multiple`."""
    return _pack_ack(_METHOD, channel, 13, _REJECT, tag, True, FRAME_END)


def nack_frame(channel: int, tag: int, *, multiple: bool, requeue: bool) -> bytes:
    """A `basic.nack`."""
    return _pack_ack(_METHOD, channel, 13, _NACK, tag, multiple | requeue << 1, FRAME_END)
