"""Bodies and headers of every kind: what we write we read back, and what strangers write never surprises us."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from datetime import UTC
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import (
    Limits,
    Properties,
    ResultRecord,
    TaskTemplate,
    build_result,
    dead_letter,
    exception_from_data,
    printable,
    read_envelope,
    read_payload,
    read_result,
)
from amqp_tasks.message._headers import PROTOCOL_HEADERS, is_table_value, table_size
from amqp_tasks.serialization import compress, decompress, dumps, loads
from amqp_tasks.transport.rabbitmq._codec import decode_table, encode_table_items

kombu_json: Any = importlib.import_module("kombu.utils.json")

ACCEPT = ("json", "msgpack", "yaml")

text = st.text(max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | text
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
# The wrapper's own two keys together are the wrapper, for kombu as for us.
keys = text.filter(lambda key: key != "__type__")


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=20,
    )


values = nested(scalars)
table_values = nested(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | text | st.binary(max_size=20) | st.datetimes()
    | st.decimals()
)  # fmt: skip
any_headers = st.dictionaries(st.sampled_from(sorted(PROTOCOL_HEADERS)) | text, table_values, max_size=12)


@settings(deadline=None)  # a loaded machine is no failure
@given(values)
def test_json_round_trips_and_kombu_agrees(value: Any) -> None:
    content_type, encoding, body = dumps("json", value)

    assert loads(content_type, encoding, body, accept=("json",)) == value
    assert kombu_json.loads(body) == value
    assert loads(content_type, encoding, kombu_json.dumps(value).encode(), accept=("json",)) == value


@settings(deadline=None)  # a loaded machine is no failure
@given(values)
def test_the_depth_limit_is_exact(value: Any) -> None:
    body = dumps("json", value)[2]
    depth = _depth(json.loads(body))

    assert _reads(
        lambda: loads(
            "application/json", None, body, accept=("json",), limits=Limits(max_depth=max(depth, 1))
        )
    )
    if depth > 1:
        tight = Limits(max_depth=depth - 1)
        assert not _reads(lambda: loads("application/json", None, body, accept=("json",), limits=tight))


def _depth(value: Any) -> int:
    if isinstance(value, list | dict):
        children = list(value.values()) if isinstance(value, dict) else value
        return 1 + max(map(_depth, children), default=0)
    return 0


def _reads(read: Callable[[], Any]) -> bool:
    """Whether it reads; anything but a MalformedMessage of one line escapes and fails the test."""
    try:
        read()
    except MalformedMessage as exc:
        if not exc.detail.isprintable():
            raise AssertionError(f"more than one line: {exc.detail!r}") from exc
        return False
    return True


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.lists(values, max_size=4),
    st.dictionaries(keys, values, max_size=4),
    st.sampled_from([None, "zlib", "zstd"]),
)
def test_a_task_message_reads_back_what_was_built(
    args: list[Any], kwargs: dict[str, Any], compression: str | None
) -> None:
    message = TaskTemplate("t", compression=compression).build(
        exchange="", routing_key="q", args=args, kwargs=kwargs
    )

    payload = read_payload(read_envelope(message.properties), message.body, accept=("json",))

    assert (payload.args, payload.kwargs) == (args, kwargs)
    assert is_table_value(message.properties.all_headers())


@settings(deadline=None)  # a loaded machine is no failure
@given(values)
def test_a_result_reads_back_what_was_built(value: Any) -> None:
    message = build_result(ResultRecord(task_id="i", status="SUCCESS", result=value), reply_to="r")

    assert read_result(message.properties, message.body, accept=("json",)).result == value


@given(any_headers, st.binary(max_size=200) | values.map(lambda value: dumps("json", value)[2]), st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_arrives_is_read_or_malformed_and_can_be_set_aside(
    headers: dict[str, Any], body: bytes, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):
        headers = {**headers, "task": "t", "id": "i"}
    content_type = data.draw(
        st.sampled_from(["application/json", "application/x-msgpack", "application/x-yaml", "x", None])
    )
    properties = Properties(content_type=content_type, headers=headers)

    _reads(lambda: read_payload(read_envelope(properties), body, accept=ACCEPT))
    _reads(lambda: read_result(properties, body, accept=ACCEPT))
    aside = dead_letter(
        queue_name="q",
        exchange="",
        routing_key="q",
        properties=properties,
        body=body,
        reason="bad-body",
        detail="",
    )

    assert aside.body == body
    assert is_table_value(dict(aside.properties.headers))


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.binary(max_size=300),
    st.sampled_from(["zlib", "bzip2", "lzma", "zstd"]),
    st.integers(0, 300),
    st.integers(0, 255),
)
def test_a_flipped_byte_is_read_or_malformed(body: bytes, method: str, place: int, byte: int) -> None:
    compressed, header = compress(body, method)
    damaged = bytearray(compressed)
    damaged[place % len(damaged)] = byte

    assert decompress(compressed, header) == body
    _reads(lambda: decompress(bytes(damaged), header))


@settings(deadline=None)  # a loaded machine is no failure
@given(values)
def test_failure_data_of_any_shape_becomes_an_exception(value: Any) -> None:
    wrapped = {"exc_type": value, "exc_module": "builtins", "exc_message": value}

    assert isinstance(exception_from_data(value), Exception)
    assert isinstance(exception_from_data(wrapped), Exception)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.text(st.characters(), max_size=400) | values)
def test_printable_text_is_always_printable(value: Any) -> None:
    assert printable(value).isprintable()


@settings(deadline=None)  # a loaded machine is no failure
@given(any_headers)
def test_what_we_call_a_table_value_is_one_for_the_codec(headers: dict[str, Any]) -> None:
    table = {name: value for name, value in headers.items() if is_table_value({name: value})}

    encoded = encode_table_items(table)

    assert encode_table_items(decode_table(encoded)) == encoded
    assert table_size(table) >= len(encoded)
