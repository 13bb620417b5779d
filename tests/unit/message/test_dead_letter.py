"""Messages set aside."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from amqp_tasks.message import DeadLetterReason, OutgoingMessage, Properties, dead_letter
from amqp_tasks.message._headers import is_table_value, table_size

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FRAME_MAX = 131_072


def set_aside(properties: Properties | None = None, **options: Any) -> OutgoingMessage:
    facts: dict[str, Any] = {
        "queue_name": "mail", "exchange": "ex", "routing_key": "key", "body": b"\xff\x00body",
        "reason": DeadLetterReason.BAD_JSON, "detail": "because", "now": NOW, **options,
    }  # fmt: skip
    return dead_letter(properties=properties, **facts)


def test_it_goes_to_the_queues_dead_letter_queue_byte_for_byte() -> None:
    message = set_aside()

    assert (message.exchange, message.routing_key, message.mandatory) == ("", "mail.dead", True)
    assert message.body == b"\xff\x00body"


def test_it_says_why_and_from_where() -> None:
    message = set_aside(error_type="builtins.ValueError", traceback="Traceback…", attempts=3, worker="w@host")

    assert message.properties.headers == {
        "x-error-reason": "bad-json",
        "x-error-message": "because",
        "x-error-type": "builtins.ValueError",
        "x-error-traceback": "Traceback…",
        "x-error-queue": "mail",
        "x-error-exchange": "ex",
        "x-error-routing-key": "key",
        "x-error-time": "2026-11-21T00:00:00+00:00",
        "x-error-first-time": "2026-11-21T00:00:00+00:00",
        "x-error-attempts": 3,
        "x-error-worker": "w@host",
    }


def test_the_original_properties_are_kept() -> None:
    original = Properties(
        content_type="application/json", content_encoding="utf-8", headers={"task": "t", "id": "i", "tenant": "x"},
        delivery_mode=1, priority=7, correlation_id="c", reply_to="r", expiration="500", message_id="m", timestamp=5,
        type="ty", user_id="somebody", app_id="a",
    )  # fmt: skip

    kept = set_aside(original).properties

    for name in ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "timestamp",
                 "type", "app_id"):  # fmt: skip
        assert getattr(kept, name) == getattr(original, name), name
    assert {"task": "t", "id": "i", "tenant": "x"}.items() <= dict(kept.headers).items()
    assert kept.delivery_mode == 2


def test_it_neither_expires_nor_claims_another_user() -> None:
    kept = set_aside(Properties(expiration="500", user_id="somebody")).properties

    assert kept.expiration is None
    assert kept.user_id is None
    assert kept.headers["x-error-user-id"] == "somebody"


def test_what_the_broker_or_an_earlier_dead_letter_added_is_gone() -> None:
    headers = {
        "x-death": [{"queue": "q"}], "x-first-death-queue": "q", "x-last-death-reason": "expired", "x-delivery-count": 5,
        "x-acquired-count": 5, "x-error-reason": "old", "x-error-type": "old", "x-mine": 1,
    }  # fmt: skip

    kept = set_aside(Properties(headers=headers)).properties.headers

    assert {name for name in kept if not name.startswith("x-error-")} == {"x-mine"}
    assert kept["x-error-reason"] == "bad-json"
    assert "x-error-type" not in kept


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ("2026-11-20T10:00:00+00:00", "2026-11-20T10:00:00+00:00"),
        ("yesterday", NOW.isoformat()),
        (5, NOW.isoformat()),
        (None, NOW.isoformat()),
    ],
)
def test_the_first_time_that_a_retry_noted_is_carried_on(noted: Any, expected: str) -> None:
    kept = set_aside(Properties(headers={"x-error-first-time": noted})).properties.headers

    assert kept["x-error-first-time"] == expected
    assert kept["x-error-time"] == NOW.isoformat()


def test_copies_are_not_routed_again() -> None:
    kept = set_aside(Properties(headers={"CC": ["other"], "BCC": ["third"]})).properties.headers

    assert "CC" not in kept
    assert kept["x-error-dropped"] == ["CC", "BCC"]


def test_headers_that_no_table_can_hold_are_dropped_by_name() -> None:
    headers = {"a": object(), "b": "\ud800", "c": Decimal("1e999"), "d": "fine"}

    kept = set_aside(Properties(headers=headers)).properties.headers

    assert kept["x-error-dropped"] == ["a", "b", "c"]
    assert kept["d"] == "fine"


@pytest.mark.parametrize(
    "headers",
    [
        {"a": "x" * 125_000, "task": "t"},
        {f"h{n}": "é" * 500 for n in range(200)},
        {"task": ["x" * 9] * 13_000},
    ],
)
def test_everything_fits_one_frame_whatever_came(headers: dict[str, Any]) -> None:
    message = set_aside(
        Properties(headers=headers), traceback="\ud800é" * 100_000, detail="\U0001f600" * 9000, worker="é" * 900,
        error_type="E" * 900,
    )  # fmt: skip

    assert table_size(dict(message.properties.headers)) < FRAME_MAX - 4096
    assert is_table_value(dict(message.properties.headers))
    assert message.properties.headers["x-error-dropped"]


def test_thousands_of_small_headers_do_not_push_out_what_says_which_task_it_was() -> None:
    headers: dict[str, Any] = {"id": "i" * 36, "task": "some.task", "argsrepr": "x" * 20_000}
    headers |= {f"{number:05x}": True for number in range(20_000)}

    kept = set_aside(Properties(headers=headers)).properties.headers

    assert (kept["id"], kept["task"]) == (headers["id"], "some.task")
    assert kept["x-error-dropped"][0] == "argsrepr"


def test_a_long_traceback_keeps_its_end() -> None:
    kept = set_aside(traceback="start" + "x" * 100_000 + "ValueError: end").properties.headers[
        "x-error-traceback"
    ]

    assert len(kept) <= 32 * 1024
    assert kept.startswith("...\n")
    assert kept.endswith("ValueError: end")


def test_undecodable_properties_are_no_hindrance() -> None:
    message = set_aside(None, reason=DeadLetterReason.BAD_HEADERS)

    assert message.properties.headers["x-error-reason"] == "bad-headers"
