"""What a signature covers, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.message import (
    SIGNATURE_HEADER,
    SIGNED_AS_RESULT,
    SIGNED_AS_TASK,
    SNOOZES_HEADER,
    KeyRing,
    OutgoingMessage,
    Properties,
    ResultRecord,
    TaskTemplate,
    build_result,
    dead_letter,
    moved,
    outcome_message,
    read_join,
    run_again,
    signed_for_queue,
)
from amqp_tasks.message._letters import revived
from amqp_tasks.transport.memory._values import as_received
from amqp_tasks.transport.rabbitmq._codec import decode_properties, encode_properties

OLD, NEW = {"old": b"o" * 32}, {"new": b"n" * 32}
KEYS = KeyRing(OLD)
TEMPLATE = TaskTemplate("shop.pay", origin="gen1@host")


def sent(**options: Any) -> OutgoingMessage:
    """A signed task message."""
    message = TEMPLATE.build(
        exchange="", routing_key="shop", task_id="t-1", args=(1, "a"), reply_to="reply", **options
    )
    KEYS.sign(message)
    return message


def over_the_wire(properties: Properties) -> Properties:
    return decode_properties(encode_properties(properties))


def is_refused(properties: Properties, body: bytes, signed_as: str = SIGNED_AS_TASK) -> bool:
    try:
        KEYS.check(properties, body, signed_as)
    except MalformedMessage as exc:
        return exc.reason == "bad-signature"
    return False


@pytest.mark.parametrize("arrive", [over_the_wire, as_received])
def test_what_is_signed_is_accepted_where_it_arrives(arrive: Callable[[Properties], Properties]) -> None:
    message = sent(
        eta=60, priority=3, headers={"k": [1, {"b": None, "a": b"\xff"}], "x-own": 1}, changes={"retries": 2}
    )

    KEYS.check(arrive(message.properties), message.body, SIGNED_AS_TASK)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.builds(lambda digits, places: Decimal(digits).scaleb(-places), st.integers(-(2**31) + 1, 2**31 - 1), st.integers(0, 20))
    | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - given a zone
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_headers_of_any_kind_are_signed_as_they_are_read(headers: Mapping[str, Any]) -> None:
    message = OutgoingMessage(
        exchange="",
        routing_key="q",
        body=b"x",
        properties=Properties(headers=headers),
        signed_as=SIGNED_AS_TASK,
    )
    KEYS.sign(message)

    for arrive in (over_the_wire, as_received):
        KEYS.check(arrive(message.properties), b"x", SIGNED_AS_TASK)


SIGNED_PROPERTIES = (
    "content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id",
)  # fmt: skip
UNSIGNED_PROPERTIES = ("delivery_mode", "expiration", "timestamp", "user_id")


def test_each_property_is_either_signed_or_known_not_to_be() -> None:
    known = {*SIGNED_PROPERTIES, *UNSIGNED_PROPERTIES, "priority", "headers", "template"}

    assert {field.name for field in fields(Properties)} == known


@pytest.mark.parametrize("name", [*SIGNED_PROPERTIES, "priority"])
def test_a_changed_property_is_refused(name: str) -> None:
    message = sent(further={"message_id": "m", "type": "t", "app_id": "a"}, priority=1)

    other: Any = 2 if name == "priority" else "other"
    changed = replace(message.properties, **{name: other})

    assert is_refused(over_the_wire(changed), message.body)


@given(st.data())
def test_any_change_of_a_header_or_of_the_body_is_refused(data: st.DataObject) -> None:
    message = sent(headers={"who": "me", "x-amqp-tasks-joins": [["q", 0, 2]]}, expires=60)
    received = over_the_wire(message.properties)
    body, headers = message.body, dict(received.headers)
    names = sorted(name for name in headers if name != SIGNATURE_HEADER)
    what = data.draw(st.sampled_from(["flip", "cut", "longer", "header", "without", "added"]))
    at = data.draw(st.integers(0, len(body) - 1))
    match what:
        case "flip":
            body = body[:at] + bytes((body[at] ^ data.draw(st.integers(1, 255)),)) + body[at + 1 :]
        case "cut":
            body = body[:at]
        case "longer":
            body += data.draw(st.binary(min_size=1))
        case "header":
            name = data.draw(st.sampled_from(names))
            was = headers[name]
            headers[name] = data.draw(VALUES.filter(lambda value: repr(value) != repr(was)))
        case "without":
            del headers[data.draw(st.sampled_from(names))]
        case _:
            new = data.draw(NAMES.filter(lambda name: name not in headers and not name.startswith("x-")))
            if new in ("CC", "BCC", "timestamp_in_ms"):
                return
            headers[new] = data.draw(VALUES)

    assert is_refused(over_the_wire(replace(received, headers=headers)), body)


@pytest.mark.parametrize("at", range(64))
def test_a_changed_digit_of_the_signature_is_refused(at: int) -> None:
    message = sent()
    start, _, mac = str(message.properties.headers[SIGNATURE_HEADER]).rpartition(":")
    digit = "0" if mac[at] != "0" else "1"

    headers = {
        **message.properties.headers,
        SIGNATURE_HEADER: f"{start}:{mac[:at]}{digit}{mac[at + 1 :]}",
    }

    assert is_refused(replace(message.properties, headers=headers), message.body)


@pytest.mark.parametrize(
    "signature", ["", "1", "1:old", "2:old:00", "1:old:", "1:old:é", "1:old:00:00", 7, None, b"1:old:00", []]
)
def test_what_is_no_signature_is_refused(signature: Any) -> None:
    message = sent()
    headers = {**message.properties.headers, SIGNATURE_HEADER: signature}

    with pytest.raises(MalformedMessage, match=r"^(bad-signature|unsigned)"):
        KEYS.check(replace(message.properties, headers=headers), message.body, SIGNED_AS_TASK)


def test_an_unknown_key_is_named_safely() -> None:
    message = sent()
    headers = {**message.properties.headers, SIGNATURE_HEADER: "1:\x1b[2J:00"}

    with pytest.raises(MalformedMessage, match="not in security_signing_keys") as caught:
        KEYS.check(replace(message.properties, headers=headers), message.body, SIGNED_AS_TASK)
    assert "\x1b" not in str(caught.value)
    assert caught.value.task_id == "t-1"


def test_what_was_signed_as_one_thing_is_not_taken_for_another() -> None:
    outcome = outcome_message("amqp_tasks.join.a", 0, "t-1", value=1)
    result = build_result(ResultRecord(task_id="t-1", status="SUCCESS", result=1), reply_to="reply")
    for message in (outcome, result):
        KEYS.sign(message)

    read_join(outcome.properties, outcome.body, queue="amqp_tasks.join.a", keys=KEYS)
    with pytest.raises(MalformedMessage, match="bad-signature"):
        read_join(outcome.properties, outcome.body, queue="amqp_tasks.join.b", keys=KEYS)
    assert not is_refused(result.properties, result.body, SIGNED_AS_RESULT)
    assert is_refused(result.properties, result.body)
    assert is_refused(sent().properties, sent().body, SIGNED_AS_RESULT)


def test_keys_are_exchanged_one_after_the_other() -> None:
    before, both, after = KEYS, KeyRing(NEW | OLD), KeyRing(NEW)
    message = sent()

    both.check(message.properties, message.body, SIGNED_AS_TASK)
    both.sign(message)
    after.check(message.properties, message.body, SIGNED_AS_TASK)
    with pytest.raises(MalformedMessage, match="'new', which is not in"):
        before.check(message.properties, message.body, SIGNED_AS_TASK)


def test_another_secret_under_the_same_id_is_refused() -> None:
    message = sent()

    with pytest.raises(MalformedMessage, match="does not fit"):
        KeyRing({"old": b"x" * 32}).check(message.properties, message.body, SIGNED_AS_TASK)


def test_unsigned_is_refused_unless_it_may_be_and_a_bad_signature_always() -> None:
    plain = TEMPLATE.build(exchange="", routing_key="shop", task_id="t-1")
    lenient = KeyRing(OLD, requires=False)

    with pytest.raises(MalformedMessage, match=r"^unsigned: .*security_signing_keys"):
        KEYS.check(plain.properties, plain.body, SIGNED_AS_TASK)
    lenient.check(plain.properties, plain.body, SIGNED_AS_TASK)
    with pytest.raises(MalformedMessage, match="bad-signature"):
        lenient.check(sent().properties, b"other", SIGNED_AS_TASK)


def test_what_is_published_again_as_it_is_keeps_its_signature() -> None:
    received = over_the_wire(sent(headers={"x-own": "1"}).properties)
    body = sent().body
    letter = dead_letter(
        queue_name="shop",
        exchange="",
        routing_key="shop",
        properties=received,
        body=body,
        reason="failed",
        detail="no",
    )
    round_trip = revived("shop", over_the_wire(letter.properties), body)
    waited = run_again(received, body, exchange="", routing_key="shop", changes={SNOOZES_HEADER: 1})

    for message in (letter, round_trip, waited, moved(received, body, "other")):
        KeyRing(NEW).sign(message)
        assert not is_refused(over_the_wire(message.properties), body)


@pytest.mark.parametrize("headers", [{}, {SIGNATURE_HEADER: "1:old:00"}], ids=["unsigned", "forged"])
def test_who_publishes_a_dead_letter_again_does_not_vouch_for_it(headers: dict[str, Any]) -> None:
    forged = TEMPLATE.build(exchange="", routing_key="shop", task_id="t-1")
    properties = replace(forged.properties, headers={**forged.properties.headers, **headers})

    again = revived("shop", properties, forged.body)
    KEYS.sign(again)

    with pytest.raises(MalformedMessage, match=r"unsigned|bad-signature"):
        KEYS.check(again.properties, again.body, SIGNED_AS_TASK)


def test_a_retry_is_signed_anew_where_it_was_signed() -> None:
    def retried(message: OutgoingMessage) -> OutgoingMessage:
        properties = over_the_wire(message.properties)
        return run_again(
            properties,
            message.body,
            exchange="",
            routing_key="q",
            changes={"retries": 1},
            is_signed_anew=True,
        )

    again = retried(sent())
    assert SIGNATURE_HEADER not in again.properties.headers, "one that does not fit is worse than none"
    KEYS.sign(again)
    KEYS.check(again.properties, again.body, SIGNED_AS_TASK)

    unsigned = retried(TEMPLATE.build(exchange="", routing_key="shop", task_id="t-1"))
    KEYS.sign(unsigned)
    assert SIGNATURE_HEADER not in unsigned.properties.headers


def test_a_header_that_no_table_holds_is_refused_by_who_signs() -> None:
    message = OutgoingMessage(
        exchange="",
        routing_key="q",
        body=b"",
        properties=Properties(headers={"a": {1, 2}}),
        signed_as=SIGNED_AS_TASK,
    )

    with pytest.raises(EncodeError, match="set"):
        KEYS.sign(message)


def test_the_signature_is_what_the_wire_protocol_says() -> None:
    """Written from the page alone, as somebody would in another language."""
    message = OutgoingMessage(
        exchange="",
        routing_key="q",
        body=b"[[], {}, {}]",
        properties=Properties(
            content_type="application/json", correlation_id="t", priority=5, message_id="m",
            headers={
                "task": "a", "retries": 3, "flag": True, "void": None, "x-death": [1], "half": 0.5,
                "list": ["é", {"k": b"\xff"}], "x-amqp-tasks-step": [], "x-amqp-tasks-snoozes": 4, "CC": ["q"],
                "price": Decimal("1.50"), "at": datetime(2026, 1, 1, tzinfo=UTC),
            },
        ),
        signed_as=SIGNED_AS_TASK,
    )  # fmt: skip
    KEYS.sign(message)

    def text(value: str) -> bytes:
        return struct.pack(">I", len(value.encode())) + value.encode()

    headers = [
        text("task") + b"S" + text("a"),
        text("retries") + b"l" + struct.pack(">q", 3),
        text("flag") + b"t\x01",
        text("void") + b"V",
        text("half") + b"d" + struct.pack(">d", 0.5),
        text("list") + b"A\0\0\0\x02S" + text("é") + b"F\0\0\0\x01" + text("k") + b"x\0\0\0\x01\xff",
        text("x-amqp-tasks-step") + b"A\0\0\0\0",
        text("price") + b"D\x01" + struct.pack(">i", 15),
        text("at") + b"T" + struct.pack(">Q", 1767225600),
    ]
    texts = (
        "amqp-tasks signature 1", "old", "task", "application/json", "", "t", "", "m", "", "",
    )  # fmt: skip
    signed = b"".join(
        (
            *map(text, texts),
            b"\x05",
            struct.pack(">I", len(headers)),
            *sorted(headers),
            b"[[], {}, {}]",
        )
    )
    mac = hmac.new(b"o" * 32, signed, hashlib.sha256).hexdigest()
    assert message.properties.headers[SIGNATURE_HEADER] == f"1:old:{mac}"


def test_a_queue_cannot_be_called_so_that_it_is_another_purpose() -> None:
    assert not {signed_for_queue(name) for name in ("task", "result", "")} & {
        SIGNED_AS_TASK,
        SIGNED_AS_RESULT,
    }


def test_keys_are_neither_shown_nor_pickled() -> None:
    keys = KeyRing(NEW | OLD)

    assert repr(keys) == "KeyRing(new, old)"
    with pytest.raises(TypeError, match="keys are not pickled"):
        pickle.dumps(keys)


class Colour(str, Enum):  # noqa: UP042 - `str()` of a StrEnum gives its value anyway
    RED = "red"


@pytest.mark.parametrize("arrive", [over_the_wire, as_received])
def test_a_text_of_an_enumeration_arrives_as_its_value(arrive: Callable[[Properties], Properties]) -> None:
    message = sent(headers={"colour": Colour.RED})

    arrived = arrive(message.properties)

    assert arrived.headers["colour"] == "red"
    assert not is_refused(arrived, message.body)


def test_a_decimal_is_signed_alike_whatever_the_thread_computes_with() -> None:
    message = sent(headers={"price": Decimal("1.23456")})
    arrived = over_the_wire(message.properties)

    with localcontext(prec=2):
        assert not is_refused(arrived, message.body)
