"""Dead letters are read whatever they hold, and put back as they were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from amqp_tasks.message import OutgoingMessage, Properties, dead_letter, read_envelope
from amqp_tasks.message._letters import read_dead_letter, revived
from amqp_tasks.worker._job import key_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEADERS: dict[str, Any] = {
    "task": "proj.add",
    "id": "one",
    "argsrepr": "(1,)",
    "kwargsrepr": "{}",
    "tenant": b"\xff",
}


def set_aside(properties: Properties, **options: Any) -> OutgoingMessage:
    facts: dict[str, Any] = {
        "queue_name": "mail", "exchange": "ex", "routing_key": "key", "body": b"\xff\x00body", "reason": "failed",
        "detail": "because", "now": NOW, **options,
    }  # fmt: skip
    return dead_letter(properties=properties, **facts)


def test_what_a_worker_set_aside_says_what_it_was_and_why() -> None:
    message = set_aside(
        Properties(headers=HEADERS, content_type="application/json"),
        error_type="ValueError", traceback="Traceback…", attempts=3, worker="w@host",
    )  # fmt: skip

    letter = read_dead_letter("mail", message.properties, message.body)

    assert (letter.id, letter.task, letter.queue_name) == ("one", "proj.add", "mail")
    assert (letter.reason, letter.detail, letter.error_type) == ("failed", "because", "ValueError")
    assert (letter.traceback, letter.attempts, letter.worker) == ("Traceback…", 3, "w@host")
    assert (letter.first_time, letter.time) == (NOW, NOW)
    assert (letter.exchange, letter.routing_key) == ("ex", "key")
    assert (letter.argsrepr, letter.kwargsrepr) == ("(1,)", "{}")
    assert letter.headers == HEADERS
    assert (letter.content_type, letter.size, letter.body) == ("application/json", 6, b"\xff\x00body")


@pytest.mark.parametrize(
    ("said", "reason"), [("delivery_limit", "delivery-limit"), ("expired", "expired"), ("maxlen", "maxlen")]
)
def test_what_rabbitmq_dead_lettered_has_the_reason_of_its_death_in_this_queue(
    said: str, reason: str
) -> None:
    wheel = {
        "queue": "some.delay",
        "reason": "expired",
        "count": 9,
        "time": NOW,
        "routing-keys": ["1.0.mail"],
    }
    death = {
        "queue": "mail", "reason": said, "count": 1, "exchange": "ex", "routing-keys": ["key"],
        "time": datetime(2026, 11, 21, 12),  # noqa: DTZ001 - as some clients decode it
    }  # fmt: skip
    headers = HEADERS | {"x-death": [wheel, death], "x-first-death-queue": "mail", "x-delivery-count": 7}

    letter = read_dead_letter("mail", Properties(headers=headers), b"")

    assert (letter.reason, letter.attempts, letter.time) == (reason, 1, NOW)
    assert letter.detail
    assert (letter.exchange, letter.routing_key) == ("ex", "key")
    assert letter.headers == HEADERS


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-death": "yes"},
        {"x-death": []},
        {"x-death": [5, None]},
        {
            "x-death": [
                {"queue": 1, "reason": [], "count": "x", "time": "now", "routing-keys": [None], "exchange": 5}
            ]
        },
        {"x-death": [{"queue": "mail", "routing-keys": []}]},
        {"x-error-reason": 5, "id": 7, "task": [], "argsrepr": {}},
        {"x-error-reason": "", "id": ""},
    ],
)
def test_what_says_nothing_readable_has_the_reason_unknown_and_an_id_that_stays(
    headers: dict[str, Any],
) -> None:
    first = read_dead_letter("mail", Properties(headers=headers), b"body")
    again = read_dead_letter("mail", Properties(headers=headers | {"x-delivery-count": 3}), b"body")

    assert (first.reason, first.task) == ("unknown", None)
    assert first.id.startswith("sha256:")
    assert first.id == again.id
    assert first.id != read_dead_letter("mail", Properties(headers=headers), b"other").id


@pytest.mark.parametrize(
    "field", ["message", "type", "traceback", "queue", "time", "first-time", "attempts", "worker"]
)
@pytest.mark.parametrize("value", [None, 5, b"\xff", [1], {"a": 1}, "\ud800"])
def test_forged_facts_do_no_harm(field: str, value: Any) -> None:
    headers = {"x-error-reason": "failed", f"x-error-{field}": value}

    assert read_dead_letter("mail", Properties(headers=headers), b"").reason == "failed"


def test_headers_that_could_not_be_decoded_leave_the_message_id_aside() -> None:
    letter = read_dead_letter("mail", None, b"body")

    assert (letter.reason, letter.headers, letter.size) == ("unknown", {}, 4)


def test_it_comes_back_to_its_queue_as_it_was() -> None:
    original = Properties(
        content_type="application/json", content_encoding="utf-8", headers=HEADERS, priority=7, correlation_id="c",
        reply_to="r", message_id="m", timestamp=5, type="ty", app_id="a",
    )  # fmt: skip
    message = set_aside(original, traceback="Traceback…", attempts=3)

    again = revived("mail", message.properties, message.body)

    assert (again.exchange, again.routing_key, again.mandatory) == ("", "mail", True)
    assert again.body == b"\xff\x00body"
    assert again.properties == replace(original, headers=HEADERS | {"x-amqp-tasks-snoozes": 1})


def test_each_time_it_comes_back_it_is_another_run_to_the_workers() -> None:
    message = Properties(headers=HEADERS)
    keys = set[str]()

    for _ in range(3):
        envelope = read_envelope(message)
        keys.add(key_of(envelope.id, envelope.retries, envelope.snoozes, queue_name="mail"))
        aside = set_aside(message)
        message = revived("mail", aside.properties, aside.body).properties

    assert len(keys) == 3


def test_what_the_broker_noted_and_routing_headers_are_taken_off() -> None:
    headers = HEADERS | {
        "x-death": [{}],
        "x-last-death-queue": "mail",
        "x-delivery-count": 3,
        "CC": ["copies"],
    }

    again = revived("mail", Properties(headers=headers, user_id="guest"), b"")

    assert again.properties.headers == HEADERS | {"x-amqp-tasks-snoozes": 1}
    assert again.properties.user_id is None


@pytest.mark.parametrize("count", [2**63 - 1, 2**31, -1, True, "3"], ids=str)
def test_a_count_that_nobody_has_written_begins_anew(count: Any) -> None:
    counts = {"x-amqp-tasks-snoozes": count, "x-amqp-tasks-requeues": count, "x-delivery-count": count}

    message = revived("mail", Properties(headers={**HEADERS, **counts}), b"[]")

    envelope = read_envelope(Properties(headers={**HEADERS, **counts}))
    assert (envelope.snoozes, envelope.requeues, envelope.delivery_count) == (0, 0, 0)
    assert message.properties.all_headers()["x-amqp-tasks-snoozes"] == 1
