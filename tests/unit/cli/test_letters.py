"""Dead letters are shown safely, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from amqp_tasks import App, Task
from amqp_tasks.cli._letters import HEADINGS, as_data, as_lines, as_row, without_sensitive_body
from amqp_tasks.message import DeadLetter, Properties
from amqp_tasks.message._letters import read_dead_letter
from amqp_tasks.serialization import compress

HOSTILE: dict[str, Any] = {
    "id": "\x1b[2Jid", "task": "a\nb\u202e", "argsrepr": "amqp://me:hunter2@mq", "nan": float("nan"), "inf": [float("-inf")],
    "bytes": b"\xff\x00", "table": {"k\x1b": Decimal("1.5")}, "at": datetime(2026, 1, 1, tzinfo=UTC), "lone": "\ud800",
    "x-error-reason": "failed\x1b", "x-error-message": "no\r\npassword=hunter2", "x-error-traceback": "a\x1b[31m\npassword: hunter2",
    "x-error-worker": "w\x07",
}  # fmt: skip


def letter(body: bytes = b"") -> DeadLetter:
    return read_dead_letter("mail", Properties(headers=HOSTILE), body)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe\x00\x1b", b'{"password": "hunter2"}', b"\x1b[2J", "é".encode()]
)
def test_json_is_valid_and_masked_for_any_bytes(body: bytes) -> None:
    text = json.dumps(as_data(letter(body)), ensure_ascii=True, allow_nan=False)

    data = json.loads(text)
    text.encode("ascii")
    assert "hunter2" not in text
    assert data["headers"]["lone"].encode("utf-8")
    assert ("body" in data) != ("body_base64" in data)
    assert data["headers"]["nan"] == "nan"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00\x1b", b'{"password": "hunter2"}', b"\x1b[2J" * 9000])
def test_text_is_printable_and_masked(body: bytes) -> None:
    lines = list(as_lines(letter(body)))

    assert all(line.isprintable() for line in lines), lines
    assert "hunter2" not in "".join(lines)
    assert sum(map(len, lines)) < 50_000


def test_a_row_is_short_and_masked() -> None:
    row = as_row(letter())

    assert len(row) == len(HEADINGS)
    assert "hunter2" not in str(row)


def test_a_body_with_sensitive_arguments_is_not_shown() -> None:
    app = App("proj")
    app.task(name="login", sensitive=("pin",))(lambda user, pin: None)
    app.task(name="open")(lambda user, pin: None)

    def shown(task: str, **headers: Any) -> tuple[str, str]:
        letter = read_dead_letter(
            "mail", Properties(headers={"id": "a", "task": task, **headers}), b'[["me", 1234]]'
        )
        safe = without_sensitive_body(letter, app.tasks)
        return "\n".join(as_lines(safe)), json.dumps(as_data(safe))

    for hidden in (
        shown("login"),
        shown("theirs", argsrepr="('me', ***)"),
        shown("theirs", kwargsrepr="{'pin': ***}"),
    ):
        assert all("1234" not in text for text in hidden)
        assert "not shown, as it holds sensitive arguments" in hidden[0]
    for open_ in (shown("open"), shown("theirs", argsrepr="('me', 1234)")):
        assert all("1234" in text for text in open_)
        assert "not shown" not in open_[0]


def _carrying(content: object, **headers: Any) -> DeadLetter:
    """The dead letter of a task that is not sensitive itself."""
    properties = Properties(headers={"id": "a", "task": "open", **headers}, content_type="application/json")
    return read_dead_letter("mail", properties, json.dumps(content).encode())


@pytest.fixture
def tasks() -> Mapping[str, Task[..., Any]]:
    app = App("proj")
    app.task(name="login", sensitive=("pin",))(lambda user, pin: None)
    app.task(name="open")(lambda user, pin: None)
    return app.tasks


def _bodies_with(call: dict[str, Any]) -> dict[str, list[Any]]:
    """Bodies that hold a call, by where it stands."""
    steps = {"size": 2, "steps": [{"body": call, "chain": [], "joins": []}]}
    return {
        "next": [[], {}, {"chain": [call]}],
        "callback": [[], {}, {"callbacks": [call]}],
        "errback": [[], {}, {"errbacks": [{"task": "open", "args": [], "options": {"link_error": [call]}}]}],
        "body": [[], {}, {"chord": {"task": "celery.chain", "kwargs": {"tasks": [call]}}}],
        "items": [[], {"task": {"task": call["task"], "args": []}, "it": call["args"]}, None],
        "failed": [[], {"task": {"task": "open"}, "request": {"id": "b", **call}}, {}],
        "watch": [[], {"queue": "amqp_tasks.join.x", "definition": steps}, {}],
    }


PLACES = sorted(_bodies_with({"task": "login", "args": []}))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "is_shown"), [("login", False), ("theirs", False), ("open", True)])
def test_a_body_that_carries_sensitive_arguments_of_another_task_is_not_shown(
    tasks: Mapping[str, Task[..., Any]], place: str, name: str, is_shown: bool
) -> None:
    letter = _carrying(_bodies_with({"task": name, "args": [["me", 987654]], "kwargs": {}})[place])

    safe = without_sensitive_body(letter, tasks)

    for text in ("\n".join(as_lines(safe)), json.dumps(as_data(safe))):
        assert ("987654" in text) == is_shown


def test_a_compressed_body_is_looked_into(tasks: Mapping[str, Task[..., Any]]) -> None:
    plain = _carrying(
        _bodies_with({"task": "login", "args": ["me", 1234]})["next"], compression="application/x-gzip"
    )
    assert plain.body is not None

    safe = without_sensitive_body(replace(plain, body=compress(plain.body, "gzip")[0]), tasks)

    assert safe.body is None


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'[[], {}, {"chain"', "application/json"),
        (b"\x80\x04K\x01.", "application/x-python-serialize"),
        (b"hello", "text/plain"),
        (b"hello", None),
        (b'[[{"task": "of the day"}], {}, null]', "application/json"),
    ],
)
def test_a_body_that_holds_no_call_is_shown_readable_or_not(
    tasks: Mapping[str, Task[..., Any]], content: bytes, content_type: str | None
) -> None:
    letter = read_dead_letter(
        "mail", Properties(headers={"task": "open"}, content_type=content_type), content
    )

    assert without_sensitive_body(letter, tasks) is letter
