"""Messages that somebody else puts into a reply queue: nothing is run, nothing hangs, other waits go on."""

from __future__ import annotations

import json
import pickle
import resource
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage, RemoteError
from support import RawClient
from support.apps import MakeApp

JSON: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}


def answer(task_id: str, result: object, status: str = "FAILURE") -> bytes:
    """A result message's body."""
    return json.dumps({"task_id": task_id, "status": status, "result": result, "traceback": None}).encode()


@pytest.mark.parametrize("status", ["FAILURE", "REVOKED"])
@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "system", ["touch {}"]),
        ("posix", "system", ["touch {}"]),
        ("subprocess", "call", [["touch", "{}"]]),
        ("subprocess", "Popen", [["touch", "{}"]]),
        ("builtins", "open", ["{}", "w"]),
        ("builtins", "eval", ["__import__('pathlib').Path('{}').touch()"]),
        ("builtins", "exec", ["open('{}', 'w')"]),
        ("pathlib", "Path.touch", ["{}"]),
        ("builtins", "SystemExit", [3]),
        ("builtins", "KeyboardInterrupt", []),
        ("builtins", "GeneratorExit", []),
        ("antigravity", "Error", []),
    ],
)
def test_an_exception_type_is_a_name_and_never_called(
    make_app: MakeApp,
    raw_client: RawClient,
    tmp_path: Path,
    module: str,
    name: str,
    arguments: list[Any],
    status: str,
) -> None:
    trace = tmp_path / "executed"
    app = make_app()
    result = app.send_task("t")
    filled = json.loads(json.dumps(arguments).replace("{}", str(trace)))
    hostile = {"exc_module": module, "exc_type": name, "exc_message": filled}

    raw_client.publish(
        app.backend.reply_to(timeout=5), answer(result.id, hostile, status), correlation_id=result.id, **JSON
    )

    with pytest.raises(RemoteError) as caught:
        result.get(5)
    assert type(caught.value) is RemoteError
    assert (caught.value.exc_module, caught.value.exc_type) == (module, name)
    assert not trace.exists()
    assert "antigravity" not in sys.modules


class Detonator:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


UNREADABLE: dict[str, tuple[bytes, dict[str, Any], dict[str, Any], str]] = {
    "empty": (b"", JSON, {}, "bad-json"),
    "null": (b"null", JSON, {}, "bad-body"),
    "a list": (b"[1]", JSON, {}, "bad-body"),
    "a status that is no text": (b'{"task_id": "x", "status": 5}', JSON, {}, "bad-body"),
    "not UTF-8": (b'"\xff"', JSON, {}, "bad-encoding"),
    "deep": (b"[" * 50_000 + b"]" * 50_000, JSON, {}, "too-deep"),
    "a giant integer": (b"9" * 1_000_000, JSON, {}, "bad-json"),
    "foreign": (b"<xml/>", {"content_type": "text/xml"}, {}, "content-type-refused"),
    "too large": (b" " * 2_000_000, JSON, {}, "too-large"),
    "a bomb": (
        zlib.compress(b"0" * 300_000_000, 9),
        JSON,
        {"compression": "application/x-gzip"},
        "decompress-bomb",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_ends_its_own_wait_with_the_reason_and_no_other(
    make_app: MakeApp, raw_client: RawClient, kind: str
) -> None:
    body, properties, headers, reason = UNREADABLE[kind]
    app = make_app(max_message_bytes=1_000_000, warn_message_bytes=1_000_000)
    attacked, other = app.send_task("t"), app.send_task("t")
    reply_to = app.backend.reply_to(timeout=5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    raw_client.publish(reply_to, body, headers, correlation_id=attacked.id, **properties)
    raw_client.publish(reply_to, answer(other.id, "fine", "SUCCESS"), correlation_id=other.id, **JSON)

    with pytest.raises(MalformedMessage, match=reason):
        attacked.get(10)
    assert other.get(5) == "fine"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_pickled_result_is_never_opened(make_app: MakeApp, raw_client: RawClient, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    app = make_app()
    body = pickle.dumps({"task_id": "x", "status": "SUCCESS", "result": Detonator(trace)})

    for content_type in ("application/x-python-serialize", "application/json"):
        result = app.send_task("t")
        raw_client.publish(
            app.backend.reply_to(timeout=5), body, correlation_id=result.id, content_type=content_type,
            content_encoding="binary",
        )  # fmt: skip
        with pytest.raises(MalformedMessage):
            result.get(5)

    assert not trace.exists()


@pytest.mark.parametrize("correlation_id", [None, "", "nobody-waits", "\x1b[31m", "x" * 255])
def test_answers_to_nobody_are_dropped(
    make_app: MakeApp, raw_client: RawClient, correlation_id: str | None
) -> None:
    app = make_app()
    result = app.send_task("t")
    reply_to = app.backend.reply_to(timeout=5)

    raw_client.publish(reply_to, answer("nobody", 1, "SUCCESS"), correlation_id=correlation_id, **JSON)
    raw_client.publish(reply_to, answer(result.id, 2, "SUCCESS"), correlation_id=result.id, **JSON)

    assert result.get(5) == 2
