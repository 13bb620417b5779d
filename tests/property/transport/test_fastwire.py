"""The hand-written codec against pika's own, on arbitrary values and arbitrary splits of the stream."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import data as pika_data
from pika import frame, spec

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.message import HeaderTemplate, OutgoingMessage, Properties
from amqp_tasks.transport.rabbitmq._codec import (
    decode_properties,
    decode_table,
    encode_properties,
    encode_table_items,
)
from amqp_tasks.transport.rabbitmq._fastwire import (
    ChannelSink,
    FastConnection,
    FastDelivery,
    Returned,
    ack_frame,
    body_frames,
    encode_head,
    nack_frame,
)

NAMES = st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2500, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
DECIMALS = st.tuples(st.integers(-(10**8), 10**8), st.integers(0, 6)).map(
    lambda pair: Decimal(pair[0]).scaleb(-pair[1])
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary(), MOMENTS, DECIMALS
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


def pika_table(table: dict[str, Any]) -> bytes:
    pieces: list[bytes] = []
    pika_data.encode_table(pieces, table)
    return b"".join(pieces)[4:]


@given(TABLES)
def test_tables_are_written_as_pika_writes_them(table: dict[str, Any]) -> None:
    assert encode_table_items(table) == pika_table(table)


@given(TABLES)
def test_tables_are_read_back(table: dict[str, Any]) -> None:
    read = decode_table(encode_table_items(table))

    assert read == _as_read(table)


def _as_read(value: Any) -> Any:
    """Bytes stay bytes and text stays text; only the type of numbers' normal form may differ."""
    if isinstance(value, dict):
        return {key: _as_read(each) for key, each in value.items()}
    return [_as_read(each) for each in value] if isinstance(value, list) else value


@given(st.floats(allow_nan=False))
def test_floats_stay_floats(number: float) -> None:
    assert decode_table(encode_table_items({"f": number})) == {"f": number}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"f\x3f\x80\x00\x00", 1.0),
        (b"t\x01", True),
        (b"V", None),
        (b"x\x00\x00\x00\x02\xff\x00", b"\xff\x00"),
        (b"S\x00\x00\x00\x01\xff", b"\xff"),
        (b"T" + b"\xff" * 8, 2**64 - 1),
        (b"A\x00\x00\x00\x02t\x00", [False]),
        (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
    ],
)
def test_every_field_type_of_rabbitmq_is_read(field: bytes, value: object) -> None:
    assert decode_table(b"\x01k" + field) == {"k": value}


@pytest.mark.parametrize(
    "data",
    [
        b"\x01k?",
        b"\x01kS\x00\x00\x00\x09a",
        b"\x05k",
        b"\x01kI\x00",
        b"\x01\xffV",
        b"\x01kA\x00\x00\x00\x01I",
    ],
    ids=[
        "unknown type",
        "string past the end",
        "key past the end",
        "short number",
        "key not utf-8",
        "short item",
    ],
)
def test_a_damaged_table_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="bad-headers"):
        decode_table(data)


def test_a_table_nested_without_end_is_malformed() -> None:
    data = b""
    for _ in range(5000):
        data = b"\x01kF" + len(data).to_bytes(4, "big") + data

    with pytest.raises(MalformedMessage, match="nested"):
        decode_table(data)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        decode_properties(data)


@pytest.mark.parametrize(
    "headers",
    [{"x" * 256: 1}, {"k": object()}, {"k": 2**63}, {"k": Decimal("NaN")}, {"k": Decimal(10**12)}],
    ids=["long name", "no such type", "wide integer", "no number", "wide decimal"],
)
def test_what_amqp_cannot_hold_is_an_encode_error(headers: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        encode_properties(Properties(headers=headers))


TEXTS = st.none() | NAMES
PROPERTIES = st.builds(
    Properties,
    content_type=TEXTS,
    content_encoding=TEXTS,
    headers=TABLES,
    template=st.none() | st.builds(HeaderTemplate, TABLES),
    delivery_mode=st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=TEXTS,
    reply_to=TEXTS,
    expiration=TEXTS,
    message_id=TEXTS,
    timestamp=st.none() | st.integers(0, 2**40),
    type=TEXTS,
    user_id=TEXTS,
    app_id=TEXTS,
)


@given(PROPERTIES)
def test_properties_are_read_by_pika_and_by_us_alike(properties: Properties) -> None:
    encoded = encode_properties(properties)

    ours, pikas = decode_properties(encoded), spec.BasicProperties()
    pikas.decode(encoded)

    names = [name for name in Properties.__slots__ if name not in {"headers", "template"}]
    assert {name: getattr(ours, name) for name in names} == {
        name: getattr(properties, name) for name in names
    }
    assert {name: getattr(pikas, name) for name in names} == {
        name: getattr(properties, name) for name in names
    }
    assert ours.all_headers() == properties.all_headers() == (pikas.headers or {})


class _Recorder(ChannelSink):
    def __init__(self) -> None:
        super().__init__(epoch=3)
        self.queue_names = {b"ctag": "work"}
        self.seen: list[tuple[Any, ...]] = []

    def on_deliveries(self, batch: list[FastDelivery]) -> None:
        self.seen += [
            (each.body, each.delivery_tag, each.redelivered, each.exchange, each.routing_key, each.queue_name)
            for each in batch
        ]

    def on_returned(self, returned: Returned) -> None:
        self.seen.append((returned.body, returned.reply_code, returned.exchange, returned.routing_key))

    def on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        self.seen.append((tag, multiple, nacked))


class _Wire(FastConnection):
    """A connection without a socket, as if it were open."""

    def __init__(self) -> None:
        self.sinks = {}
        self._frame_buffer = b""
        self._opened = True
        self._body_max_length = 131_064
        self.bytes_received = self.frames_received = 0
        self.others: list[Any] = []

    def _process_frame(self, frame_value: Any) -> None:
        self.frames_received += 1
        self.others.append(frame_value)


BODIES = st.binary(max_size=50)
TAGS = st.integers(1, 2**63)


def _content(method: Any, body: bytes, cuts: int) -> list[bytes]:
    frames = [frame.Method(1, method).marshal(), frame.Header(1, len(body), spec.BasicProperties()).marshal()]
    size = max(1, len(body) // cuts)
    return frames + [frame.Body(1, body[at : at + size]).marshal() for at in range(0, len(body), size)]


@st.composite
def _events(draw: st.DrawFn) -> tuple[list[bytes], tuple[Any, ...] | None]:
    kind = draw(st.sampled_from(["deliver", "return", "ack", "nack", "heartbeat", "other channel"]))
    tag, flag, body, cuts = draw(TAGS), draw(st.booleans()), draw(BODIES), draw(st.integers(1, 4))
    exchange, key = draw(NAMES), draw(NAMES)
    if kind == "deliver":
        method: Any = spec.Basic.Deliver("ctag", tag, flag, exchange, key)
        return _content(method, body, cuts), (body, tag, flag, exchange, key, "work")
    if kind == "return":
        return _content(spec.Basic.Return(312, "NO_ROUTE", exchange, key), body, cuts), (
            body,
            312,
            exchange,
            key,
        )
    if kind == "ack":
        return [frame.Method(1, spec.Basic.Ack(tag, flag)).marshal()], (tag, flag, False)
    if kind == "nack":
        return [frame.Method(1, spec.Basic.Nack(tag, flag)).marshal()], (tag, flag, True)
    if kind == "heartbeat":
        return [frame.Heartbeat().marshal()], None
    return [frame.Method(2, spec.Basic.Ack(tag, flag)).marshal()], None


@given(st.lists(_events(), max_size=12), st.data())
def test_any_split_of_the_stream_gives_the_same_events(
    events: list[tuple[list[bytes], tuple[Any, ...] | None]], data: st.DataObject
) -> None:
    wire, recorder = _Wire(), _Recorder()
    wire.sinks[1] = recorder
    stream = b"".join(piece for frames, _expected in events for piece in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            wire._on_data_available(stream[start:end])

    expected = [event for _frames, event in events if event is not None]
    assert sorted(map(repr, recorder.seen)) == sorted(map(repr, expected))
    deliveries = [event for event in expected if len(event) == 6]
    assert [event for event in recorder.seen if len(event) == 6] == deliveries
    assert wire.bytes_received == len(stream)
    assert wire.frames_received == sum(len(frames) for frames, _expected in events)
    assert len(wire.others) == sum(1 for _frames, event in events if event is None)


@given(PROPERTIES, st.binary(max_size=400), NAMES, NAMES, st.booleans(), st.integers(8, 200))
def test_publishes_are_read_by_pika(
    properties: Properties, body: bytes, exchange: str, key: str, mandatory: bool, body_max: int
) -> None:
    message = OutgoingMessage(
        exchange=exchange, routing_key=key, body=body, properties=properties, mandatory=mandatory
    )
    pieces = [encode_head(7, message)]
    count = body_frames(7, body, body_max, pieces)

    rest = b"".join(pieces)
    frames: list[Any] = []
    while rest:
        used, got = frame.decode_frame(rest)
        frames.append(got)
        rest = rest[used:]

    method, header, *bodies = frames
    assert (method.method.exchange, method.method.routing_key) == (exchange, key)
    assert (method.method.mandatory, method.channel_number) == (mandatory, 7)
    assert header.body_size == len(body)
    assert b"".join(each.fragment for each in bodies) == body
    assert len(bodies) == count == -(-len(body) // body_max)


@given(TAGS, st.booleans(), st.booleans())
def test_acks_are_what_pika_writes(tag: int, multiple: bool, requeue: bool) -> None:
    assert ack_frame(9, tag, multiple=multiple) == frame.Method(9, spec.Basic.Ack(tag, multiple)).marshal()
    nack = frame.Method(9, spec.Basic.Nack(tag, multiple, requeue)).marshal()
    assert nack_frame(9, tag, multiple=multiple, requeue=requeue) == nack
