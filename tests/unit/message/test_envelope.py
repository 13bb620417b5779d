"""Task messages as others may have written them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import (
    Envelope,
    HeaderTemplate,
    Limits,
    Payload,
    Properties,
    TaskTemplate,
    read_envelope,
    read_payload,
)
from amqp_tasks.serialization import compress

LEAST = {"task": "pkg.add", "id": "some-id"}


def read(**headers: Any) -> Envelope:
    return read_envelope(Properties(headers={**LEAST, **headers}))


def reason_of(**headers: Any) -> str:
    with pytest.raises(MalformedMessage) as caught:
        read(**headers)
    assert caught.value.task_id == "some-id"
    assert caught.value.detail.isprintable()
    return caught.value.reason


def body(args: Any = (), kwargs: Any = None, embed: Any = None) -> bytes:
    return json.dumps([args, {} if kwargs is None else kwargs, {} if embed is None else embed]).encode()


def payload_of(raw: bytes, limits: Limits | None = None, **properties: Any) -> Payload:
    properties = {"content_type": "application/json", "headers": LEAST, **properties}
    return read_payload(
        read_envelope(Properties(**properties)), raw, accept=("json",), limits=limits or Limits()
    )


def payload_fault(raw: bytes, limits: Limits | None = None, **properties: Any) -> str:
    with pytest.raises(MalformedMessage) as caught:
        payload_of(raw, limits, **properties)
    assert caught.value.task_id == "some-id"
    return caught.value.reason


def test_the_least_message_reads_with_defaults() -> None:
    envelope = read()

    assert (envelope.retries, envelope.root_id, envelope.reply_to, envelope.priority) == (0, "some-id", "", 0)
    assert envelope.correlation_id == "some-id"
    assert envelope.ignore_result is None


def test_what_we_build_reads_back() -> None:
    template = TaskTemplate("pkg.add", time_limit=9, ignore_result=True)
    message = template.build(exchange="", routing_key="q", args=[1], headers={"tenant": "x"}, parent_id="p")

    envelope = read_envelope(message.properties)

    assert (envelope.task, envelope.time_limit, envelope.ignore_result) == ("pkg.add", 9, True)
    assert envelope.user_headers == {"tenant": "x"}
    assert read_payload(envelope, message.body, accept=("json",)).args == [1]


def test_own_headers_win_over_the_templates() -> None:
    properties = Properties(
        headers={"id": "i", "retries": 2}, template=HeaderTemplate({"task": "t", "retries": 0})
    )

    assert read_envelope(properties).retries == 2


@pytest.mark.parametrize("name", ["task", "id"])
@pytest.mark.parametrize("present", [True, False])
def test_a_void_or_missing_identity_is_a_missing_header(name: str, present: bool) -> None:
    headers: dict[str, Any] = {key: value for key, value in LEAST.items() if key != name}
    if present:
        headers[name] = None

    with pytest.raises(MalformedMessage, match=f"no '{name}' header") as caught:
        read_envelope(Properties(headers=headers))

    assert caught.value.reason == "missing-header"


@pytest.mark.parametrize("name", ["task", "id"])
@pytest.mark.parametrize(
    "value", ["", "x" * 256, "é" * 128, "\ud800", b"\xff", 5, ["x"], {"a": 1}, "x" * 1_000_000]
)
def test_an_identity_of_another_kind_is_bad_headers(name: str, value: Any) -> None:
    with pytest.raises(MalformedMessage) as caught:
        read_envelope(Properties(headers={**LEAST, name: value}))

    assert caught.value.reason == "bad-headers"
    assert caught.value.task_id == ("some-id" if name == "task" else "")
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", "3"), ("retries", -1), ("retries", 1.5), ("retries", True), ("retries", 2**31), ("group_index", "x"), ("group_index", True),
        ("timelimit", 5), ("timelimit", [1]), ("timelimit", ["a", None]), ("timelimit", [None, True]),
        ("timelimit", [-1, None]), ("timelimit", [float("nan"), None]), ("timelimit", [Decimal("sNaN"), 1]),
        ("timelimit", [10**400, None]), ("root_id", 5), ("parent_id", b"\xff"), ("group", ["g"]), ("shadow", {}),
        ("shadow", "x" * 1025), ("origin", 1), ("lang", 1), ("compression", 5), ("ignore_result", "yes"),
        ("expires", "tomorrow"), ("expires", 5), ("expires", "0001-01-01T00:00:00+23:00"), ("eta", b"\xff"),
    ],
)  # fmt: skip
def test_a_header_of_another_type_is_bad_headers(name: str, value: Any) -> None:
    assert reason_of(**{name: value}) == "bad-headers"


def test_times_are_utc_and_without_offset_mean_utc() -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)

    assert read(expires="2026-11-21T12:00:00").expires == at
    assert read(expires="2026-11-21T12:00:00Z").expires == at
    assert read(expires=at.astimezone(timezone(timedelta(hours=5))).isoformat()).expires == at
    assert read(eta=at.replace(tzinfo=None)).eta == at


def test_time_limits_are_hard_then_soft_and_zero_is_none() -> None:
    envelope = read(timelimit=[30, 20.5])

    assert (envelope.time_limit, envelope.soft_time_limit) == (30, 20.5)
    assert read(timelimit=[0, Decimal("1.5")]).soft_time_limit == 1.5
    assert read(timelimit=[0, None]).time_limit is None


@pytest.mark.parametrize("value", [5, None, b"\xff", ["x"]])
def test_labels_for_people_never_refuse_a_task(value: Any) -> None:
    assert read(argsrepr=value).argsrepr is None
    assert len(read(argsrepr="x" * 5000).argsrepr or "") == 1024


def test_the_brokers_headers_are_no_user_headers() -> None:
    envelope = read(
        tenant="x", **{"x-death": [{}], "x-first-death-queue": "q", "x-delivery-count": 3, "x-mine": 1}
    )

    assert envelope.user_headers == {"tenant": "x", "x-mine": 1}
    assert envelope.delivery_count == 3


@pytest.mark.parametrize("count", [None, "3", -1])
def test_a_delivery_count_that_is_none_is_zero(count: Any) -> None:
    assert read(**{"x-delivery-count": count}).delivery_count == 0


def test_a_null_embed_is_an_empty_one() -> None:
    assert payload_of(b"[[1],{},null]").embed == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"null", b"5", b'"text"', b"{}", b"[]", b"[[],{}]", b"[[],{},{},1]", b"[null,{},{}]", b'["ab",{},{}]',
        b"[{},{},{}]", b"[[],[],{}]", b"[[],null,{}]", b"[[],{},[]]", b'[[],{},{"callbacks":5}]',
        b'[[],{},{"chain":{}}]', b'[[],{},{"chord":[]}]', b'[[],{},{"errbacks":"x"}]',
    ],
)  # fmt: skip
def test_a_body_of_another_shape_is_bad_body(raw: bytes) -> None:
    assert payload_fault(raw) == "bad-body"


def test_a_bad_body_is_never_quoted() -> None:
    with pytest.raises(MalformedMessage) as caught:
        payload_of(b'["my secret",{},{}]')

    assert "secret" not in str(caught.value)


def test_an_empty_body_is_bad_json() -> None:
    assert payload_fault(b"") == "bad-json"


def test_a_large_body_is_refused_before_it_is_decoded() -> None:
    assert payload_fault(b"not even json" * 10, Limits(max_message_bytes=100)) == "too-large"


def test_keys_that_msgpack_lets_through_are_bad_body() -> None:
    import msgpack

    raw = msgpack.packb([[], {b"x": 1}, {}])
    properties = Properties(content_type="application/x-msgpack", headers=LEAST)

    with pytest.raises(MalformedMessage) as caught:
        read_payload(read_envelope(properties), raw, accept=("json", "msgpack"))

    assert caught.value.reason == "bad-body"


def test_a_compressed_body_is_decompressed_within_limits() -> None:
    raw, header = compress(body([1]), "bzip2")

    assert payload_of(raw, headers={**LEAST, "compression": header}).args == [1]
    assert payload_fault(b"junk", headers={**LEAST, "compression": header}) == "bad-compression"
    bomb, header = compress(body(["a" * 3_000_000]), "zlib")
    assert payload_fault(bomb, headers={**LEAST, "compression": header}) == "decompress-bomb"


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/data", "", None])
def test_a_foreign_content_type_is_refused(content_type: str | None) -> None:
    assert payload_fault(b"\x80\x04N.", content_type=content_type) == "content-type-refused"
