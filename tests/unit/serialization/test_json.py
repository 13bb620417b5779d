"""JSON bodies: kombu's wrappers, and what hostile bodies may not do."""

from __future__ import annotations

import importlib
import json
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.serialization import Limits, dumps, loads

kombu_json: Any = importlib.import_module("kombu.utils.json")

WRAPPED = (
    datetime(2026, 11, 21, 1, 2, 3, 456, tzinfo=UTC),
    datetime(2026, 11, 21, tzinfo=UTC).replace(tzinfo=None),
    date(2026, 11, 21),
    time(23, 59, 1),
    Decimal("1.10"),
    uuid.UUID("6b8f6b9e-27d4-4f0e-8f3a-1c2f1c2f1c2f"),
    b"text",
    b"\xff\x00",
)


def read(body: bytes, **limits: int) -> Any:
    return loads("application/json", "utf-8", body, accept=("json",), limits=Limits(**limits))


def reason_of(body: bytes, **limits: int) -> str:
    with pytest.raises(MalformedMessage) as caught:
        read(body, **limits)
    return caught.value.reason


@pytest.mark.parametrize("value", WRAPPED, ids=repr)
def test_wrapped_types_come_back_equal(value: object) -> None:
    _, _, body = dumps("json", [value])

    assert read(body) == [value]


@pytest.mark.parametrize("value", WRAPPED, ids=repr)
def test_kombu_reads_our_wrappers_and_we_read_its(value: object) -> None:
    assert kombu_json.loads(dumps("json", {"k": value})[2]) == {"k": value}
    assert read(kombu_json.dumps({"k": value}).encode()) == {"k": value}


def test_a_type_registered_with_kombu_is_written_and_read() -> None:
    kombu_json.register_type(complex, "complex", lambda z: [z.real, z.imag], lambda v: complex(*v))
    try:
        assert read(dumps("json", 1 + 2j)[2]) == 1 + 2j
    finally:
        kombu_json._encoders.pop(complex)
        kombu_json._decoders.pop("complex")


def test_a_value_may_bring_its_own_json_form() -> None:
    class Money:
        def __json__(self) -> dict[str, int]:
            return {"cents": 5}

    assert read(dumps("json", [Money()])[2]) == [{"cents": 5}]


def test_not_a_number_and_infinity_pass_as_celery_writes_them() -> None:
    value = read(dumps("json", [float("inf"), float("nan")])[2])

    assert value[0] == float("inf")
    assert value[1] != value[1]


def test_the_last_of_equal_keys_wins() -> None:
    assert read(b'{"a":1,"a":2}') == {"a": 2}


def test_lone_surrogates_of_undecodable_file_names_pass() -> None:
    assert read(dumps("json", "caf\udce9")[2]) == "caf\udce9"


def test_white_space_around_a_body_is_ignored() -> None:
    assert read(b" \n[1] \n") == [1]


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"[", b"[1", b"[1]x", b"{", b'{"a"', b'{"a":}', b"nul", b"'a'", b"[1,]", b"\xef\xbb\xbf[]",
        b'{"__type__":"datetime","__value__":5}',
        b'{"__type__":"datetime","__value__":"yesterday"}',
        b'{"__type__":"decimal","__value__":"abc"}',
        b'{"__type__":"uuid","__value__":{"int":5}}',
        b'{"__type__":"uuid","__value__":"no object"}',
        b'{"__type__":"base64","__value__":"a"}',
        b'{"__type__":"bytes","__value__":null}',
        b'{"__type__":["unhashable"],"__value__":1}',
        b'{"__type__":"os.system","__value__":"true"}',
    ],
)  # fmt: skip
def test_a_broken_body_is_bad_json(body: bytes) -> None:
    assert reason_of(body) == "bad-json"


def test_a_body_that_is_not_utf_8_is_bad_encoding() -> None:
    assert reason_of(b'["\xff"]') == "bad-encoding"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000])
def test_a_hundred_thousand_brackets_are_too_deep(body: bytes) -> None:
    assert reason_of(body) == "too-deep"


_bracketed = st.text(alphabet='[]{}"\\,: a', max_size=8)
_nested = st.recursive(
    _bracketed | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_bracketed, inner, max_size=3),
    max_leaves=30,
)


def _depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(_depth, value), default=0)
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)
        case _:
            return 0


@given(value=_nested, max_depth=st.integers(1, 6))
def test_depth_is_that_of_the_value_whatever_its_texts_hold(value: object, max_depth: int) -> None:
    body = json.dumps(value).encode()
    if _depth(value) > max_depth:
        assert reason_of(body, max_depth=max_depth) == "too-deep"
    else:
        assert read(body, max_depth=max_depth) == value


def test_depth_is_counted_exactly_and_brackets_in_text_do_not_count() -> None:
    text = '"[[[[{{{{ \\" [[[["'
    assert read(f"[[[{text}]]]".encode(), max_depth=3) == [[['[[[[{{{{ " [[[[']]]
    assert reason_of(f"[[[[{text}]]]]".encode(), max_depth=3) == "too-deep"
    assert reason_of(b'[{"a":[{}]}]', max_depth=3) == "too-deep"
    assert read(b"[" + b"[]," * 50 + b"[]]", max_depth=2) == [[]] * 51


def test_a_million_digits_are_bad_json() -> None:
    assert reason_of(b"[" + b"9" * 1_000_000 + b"]") == "bad-json"


def test_the_digit_limit_holds_without_the_interpreters() -> None:
    body = b"[" + b"9" * 60 + b"]"
    assert reason_of(body, max_int_digits=50) == "bad-json"
    assert read(b"[1" + b" " * 60 + b"]", max_int_digits=50) == [1]


@pytest.fixture
def no_interpreter_limit() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("no_interpreter_limit")
def test_the_digit_limit_holds_when_the_interpreters_is_off() -> None:
    assert reason_of(b"[" + b"9" * 5_000 + b"]") == "bad-json"


def test_a_faults_text_is_one_printable_line() -> None:
    with pytest.raises(MalformedMessage) as caught:
        read(b'{"__type__":"datetime","__value__":"\\u001b[31m\\n' + b"x" * 10_000 + b'"}')

    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= 200


def test_a_value_that_contains_itself_is_an_encode_error() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(EncodeError, match="contains itself"):
        dumps("json", value)


@pytest.mark.parametrize("limit", Limits.__slots__)
def test_a_limit_below_one_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        Limits(**{limit: 0})
