"""Promise 8: no message can stop a worker. What cannot run lies byte for byte in `<queue>.dead`, with its reason."""

from __future__ import annotations

import bz2
import lzma
import pickle
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import Any
from urllib.parse import urlsplit

import amqp
import pytest
from pika import BasicProperties

from support import Ledger, RawClient, Vhost, WorkerProcess, eventually
from support.hostile import JSON, MAX_MESSAGE, good_headers, peak_kib
from support.worker_app import QUEUE

DEAD = f"{QUEUE}.dead"
GOOD_BODY = b'[["never"], {}, {}]'
Neighbours = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to be malformed, and the word that says so."""

    name: str
    reason: str
    body: bytes = GOOD_BODY
    headers: dict[str, Any] = field(default_factory=good_headers)
    properties: dict[str, Any] = field(default_factory=lambda: dict(JSON))


def _nested(depth: int) -> bytes:
    return b"[[" + b"[" * depth + b"]" * depth + b"], {}, {}]"


def _bodies() -> Iterator[Kind]:
    for name, body in {
        "an empty body": b"",
        "cut JSON": b"[[1, 2",
        "JSON with a tail": GOOD_BODY + b"]",
        "no JSON": b"hello",
        "a protocol 0 pickle called JSON": pickle.dumps([[], {}, {}], protocol=0),
        "an integer of a million digits": b"[[" + b"9" * 1_000_000 + b"], {}, {}]",
        "an unknown wrapper": b'[[{"__type__": "os.system", "__value__": "true"}], {}, {}]',
        "a wrapper around nonsense": b'[[{"__type__": "uuid", "__value__": {"hex": [1]}}], {}, {}]',
    }.items():
        yield Kind(name=name, reason="bad-json", body=body)
    for name, body in {
        "null": b"null",
        "a JSON string": b'"hello"',
        "a JSON number": b"7",
        "a JSON object": b'{"args": []}',
        "an array of two": b"[[], {}]",
        "an array of four": b"[[], {}, {}, {}]",
        "args that are an object": b"[{}, {}, {}]",
        "kwargs that are an array": b"[[], [], {}]",
        "embed that is text": b'[[], {}, "x"]',
        "callbacks that are a number": b'[[], {}, {"callbacks": 1}]',
    }.items():
        yield Kind(name=name, reason="bad-body", body=body)
    for name, body in {
        "not UTF-8": b'[["\xff\xfe"], {}, {}]',
        "UTF-16": '[["x"], {}, {}]'.encode("utf-16"),
        "an encoded lone surrogate": b'[["\xed\xa0\x80"], {}, {}]',
        "a pickle called JSON": pickle.dumps([[], {}, {}]),
    }.items():
        yield Kind(name=name, reason="bad-encoding", body=body)
    yield Kind(name="100,000 brackets", reason="too-deep", body=b"[" * 100_000)
    yield Kind(name="100,000 arrays", reason="too-deep", body=_nested(100_000))
    yield Kind(name="300 arrays", reason="too-deep", body=_nested(300))
    yield Kind(name="a huge body", reason="too-large", body=b" " * (MAX_MESSAGE + 1))


def _compressed() -> Iterator[Kind]:
    zeros = b"0" * 300_000_000
    for content_type, bomb in {
        "application/x-gzip": zlib.compress(zeros, 9),
        "application/x-bz2": bz2.compress(zeros),
        "application/x-lzma": lzma.compress(zeros, preset=0),
    }.items():
        headers = good_headers(compression=content_type)
        yield Kind(name=f"a bomb of {content_type}", reason="decompress-bomb", body=bomb, headers=headers)
        yield Kind(name=f"no {content_type}", reason="bad-compression", headers=headers)
    cut = zlib.compress(GOOD_BODY)[:-3]
    headers = good_headers(compression="application/x-gzip")
    yield Kind(name="a cut zlib stream", reason="bad-compression", body=cut, headers=headers)
    yield Kind(
        name="an unknown compression", reason="bad-compression", headers=good_headers(compression="os.system")
    )


def _headers() -> Iterator[Kind]:
    yield Kind(name="no headers", reason="missing-header", headers={})
    yield Kind(name="no id", reason="missing-header", headers={"task": "count"})
    yield Kind(name="no task", reason="missing-header", headers={"id": "x"})
    yield Kind(
        name="task protocol 1",
        reason="missing-header",
        headers={},
        body=b'{"task": "count", "id": "x", "args": ["never"], "kwargs": {}, "retries": 0, "eta": null}',
    )
    wrong_types: dict[str, Any] = {
        "task": 5, "id": ["x"], "retries": "many", "timelimit": "long", "eta": 15, "expires": "tomorrow",
        "group_index": "first", "ignore_result": "yes", "shadow": {"a": 1}, "compression": 7, "root_id": b"bytes",
    }  # fmt: skip
    for name, value in wrong_types.items():
        yield Kind(
            name=f"a wrong type of {name}", reason="bad-headers", headers=good_headers() | {name: value}
        )
    changes: dict[str, dict[str, Any]] = {
        "an empty name": {"task": ""},
        "an empty id": {"id": ""},
        "a name of 20 KB": {"task": "x" * 20_000},
        "an id of 20 KB": {"id": "y" * 20_000},
        "a negative count of retries": {"retries": -1},
        "a negative time limit": {"timelimit": [-1, None]},
    }
    for name, changed in changes.items():
        yield Kind(name=name, reason="bad-headers", headers=good_headers() | changed)


def _names_and_types() -> Iterator[Kind]:
    names = (
        "os.system",
        "../x",
        "/etc/passwd",
        "__import__('os')",
        "support.worker_app.count",
        "Count",
        "täsk\u202e",
    )
    for name in (*names, "n" * 255):
        yield Kind(name=f"the name {name[:30]}", reason="unknown-task", headers=good_headers(task=name))
    for content_type in ("text/plain", "application/x-python-serialize", "application/x-yaml", "x" * 200, ""):
        properties = {"content_type": content_type, "content_encoding": "utf-8"}
        yield Kind(
            name=f"the content type {content_type[:40]!r}",
            reason="content-type-refused",
            properties=properties,
        )
    yield Kind(name="no content type", reason="content-type-refused", properties={})


KINDS = [*_bodies(), *_compressed(), *_headers(), *_names_and_types()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_promise_8_it_is_set_aside_unchanged_and_its_neighbours_run(
    raw_client: RawClient, neighbours: Neighbours, worker: WorkerProcess, kind: Kind
) -> None:
    peaks = {pid: peak_kib(pid) for pid in [worker.pid, *worker.children()]}
    neighbours()

    raw_client.publish(QUEUE, kind.body, kind.headers, **kind.properties)
    neighbours()
    dead = raw_client.get(DEAD, within=10)

    assert dead.body == kind.body
    assert dead.headers["x-error-reason"] == kind.reason, dead.headers["x-error-message"]
    assert dead.headers["x-error-message"]
    assert dead.headers["x-error-queue"] == QUEUE
    assert {key: dead.headers.get(key) for key in kind.headers} == kind.headers
    assert dead.properties.content_type == kind.properties.get("content_type")
    for pid, before in peaks.items():
        assert peak_kib(pid) - before < 64 * 1024, "memory grew with the message"


class Detonator:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/json", "pickle"])
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_never_opened(
    raw_client: RawClient, neighbours: Neighbours, tmp_path: Path, content_type: str, protocol: int
) -> None:
    trace = tmp_path / "executed"
    body = pickle.dumps([[Detonator(trace)], {}, {}], protocol=protocol)
    pickle.loads(body)[0][0].close()
    assert trace.exists(), "the bomb itself must work"
    trace.unlink()

    raw_client.publish(QUEUE, body, good_headers(), content_type=content_type, content_encoding="binary")
    neighbours()

    assert raw_client.get(DEAD).body == body
    assert not trace.exists()


def test_escaped_lone_surrogates_are_text_like_any_other(
    raw_client: RawClient, neighbours: Neighbours, ledger: Ledger
) -> None:
    raw_client.publish(QUEUE, b'[["lone \\ud800"], {}, {}]', good_headers(), **JSON)
    neighbours()

    ledger.wait_for("done", "lone \ud800")


def test_names_and_ids_with_control_characters_forge_no_log_line(
    raw_client: RawClient, neighbours: Neighbours, worker: WorkerProcess
) -> None:
    evil = "\x1b[31mred\x1b[0m\nERROR forged line\r\x07"
    raw_client.publish(QUEUE, GOOD_BODY, good_headers(evil, task=evil), **JSON)
    raw_client.publish(QUEUE, b'[["evil id"], {}, {}]', good_headers(evil, shadow=evil), **JSON)
    raw_client.publish(QUEUE, GOOD_BODY, good_headers(evil), content_type=evil)
    neighbours()

    reasons = [raw_client.get(DEAD).headers["x-error-reason"] for _ in range(2)]

    assert sorted(reasons) == ["content-type-refused", "unknown-task"]
    worker.wait_output("forged line")
    assert "\x1b" not in worker.output
    assert "\x07" not in worker.output
    assert not [line for line in worker.output.splitlines() if line.startswith("ERROR forged")]


def test_an_expired_message_is_not_run(raw_client: RawClient, neighbours: Neighbours, ledger: Ledger) -> None:
    headers = good_headers("late", expires="2001-01-01T00:00:00+00:00")
    raw_client.publish(QUEUE, b'[["expired"], {}, {}]', headers, **JSON)
    neighbours()

    eventually(lambda: raw_client.depth(QUEUE) == 0)
    assert "expired" not in ledger.keys("done")


@pytest.mark.parametrize("reply_to", [QUEUE, DEAD, "no.such.queue", "../x", "x" * 255])
def test_a_hostile_reply_queue_starts_no_loop(
    raw_client: RawClient, neighbours: Neighbours, reply_to: str
) -> None:
    headers = good_headers("loop", task="no.such.task")
    raw_client.publish(QUEUE, GOOD_BODY, headers, **JSON, reply_to=reply_to)
    neighbours()

    dead = raw_client.get(DEAD)
    # The answer went where the message said, and is there no task: it is set aside once, and nobody answers it.
    answers = 1 if reply_to in (QUEUE, DEAD) else 0

    assert dead.body == GOOD_BODY
    for _ in range(answers):
        assert b"NotRegistered" in raw_client.get(DEAD).body


def test_routing_headers_send_no_second_copies(raw_client: RawClient, neighbours: Neighbours) -> None:
    raw_client.declare("bystander")
    headers = good_headers(task="no.such.task", CC=["bystander"])

    raw_client.publish(QUEUE, GOOD_BODY, headers, **JSON)
    neighbours()

    assert raw_client.get(DEAD).headers["x-error-reason"] == "unknown-task"
    assert len(raw_client.drain("bystander")) == 1


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("depth", [40, 400, 4000])
def test_deeply_nested_headers_are_survived(
    raw_client: RawClient, neighbours: Neighbours, depth: int
) -> None:
    nested: dict[str, Any] = {}
    for _ in range(depth):
        nested = {"a": nested}

    with _deep_recursion():
        raw_client.publish(QUEUE, GOOD_BODY, good_headers(task="no.such.task", deep=nested), **JSON)
        neighbours()
        dead = raw_client.get(DEAD)

    assert dead.body == GOOD_BODY
    assert dead.headers["x-error-reason"] in ("unknown-task", "bad-headers")


@pytest.mark.parametrize(
    "headers",
    [
        {"task": b"count\xff", "id": "x"},
        {"task": "count", "id": b"\xed\xa0\x80"},
        {"task": "no.such.task", "id": "x", "note": b"\xff\xfe"},
    ],
    ids=["task", "id", "other"],
)
def test_headers_that_are_not_utf8_are_survived(
    raw_client: RawClient, neighbours: Neighbours, vhost: Vhost, headers: dict[str, Any]
) -> None:
    parts = urlsplit(vhost.url)
    # Another client library, as pika writes bytes with a type of their own.
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port}", virtual_host=vhost.name, confirm_publish=True,
        userid=parts.username or "guest", password=parts.password or "guest",
    )  # fmt: skip
    with connection:
        message = amqp.Message(GOOD_BODY, application_headers=headers, content_type="application/json")
        connection.channel().basic_publish(message, exchange="", routing_key=QUEUE)
    neighbours()

    dead = raw_client.get(DEAD)

    assert dead.body == GOOD_BODY
    assert dead.headers["x-error-reason"] in ("bad-headers", "unknown-task")


class RawProperties(BasicProperties):
    """Properties as bytes: flags and values as they stand in a content header."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        """The content header's payload from the flags on."""
        return [self._encoded]


def _with_table(table: bytes) -> RawProperties:
    """JSON with that header table."""
    content_type = b"\x10application/json"
    return RawProperties(pack(">H", 0xA000) + content_type + pack(">I", len(table)) + table)


def _item(key: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes((len(key),)) + key + kind + (pack(">I", len(value)) if kind in b"SFA" else b"") + value


def _nested_tables(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = _item(b"d", b"F", table)
    return table


FEW = _item(b"id", b"S", b"hostile") + _item(b"task", b"S", b"no.such.task")
FRAME_MAX = 131072
# What a frame has left beside the rest of the content header.
ROOM = FRAME_MAX - 8 - 12 - 2 - 17 - 4 - len(FEW)
TABLES = {
    "tables in tables as deep as a frame allows": (FEW + _nested_tables(ROOM // 7), "bad-headers"),
    "200 tables in tables": (FEW + _nested_tables(200), "bad-headers"),
    "16,000 headers": (
        FEW + b"".join(_item(b"%05x" % number, b"t", b"\x01") for number in range(16_000)),
        "unknown-task",
    ),
    "a header as large as a frame allows": (FEW + _item(b"big", b"S", b"x" * (ROOM - 9)), "unknown-task"),
}


@pytest.mark.parametrize("name", TABLES)
def test_promise_8_huge_and_deep_headers_are_set_aside(
    raw_client: RawClient, neighbours: Neighbours, worker: WorkerProcess, name: str
) -> None:
    table, reason = TABLES[name]
    peaks = {pid: peak_kib(pid) for pid in [worker.pid, *worker.children()]}
    neighbours()

    raw_client.channel.basic_publish("", QUEUE, GOOD_BODY, _with_table(table))
    neighbours()

    dead = raw_client.get(DEAD, within=40)  # the broker itself takes seconds over the deepest one

    assert dead.body == GOOD_BODY
    assert dead.headers["x-error-reason"] == reason
    # What cannot be republished beside the reason is named, and the task's own headers are not among it.
    is_readable = reason != "bad-headers"
    assert bool(dead.headers.get("x-error-dropped")) is is_readable
    assert (dead.headers.get("id") == "hostile") is is_readable
    for pid, before in peaks.items():
        assert peak_kib(pid) - before < 64 * 1024, "memory grew with the message"
