"""Promise 8: no message can stop a worker. Each is found again byte for byte among the dead letters, with its reason."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from typing import Any

import pytest
from pika import BasicProperties

from support import RawClient, WorkerProcesses, eventually
from support.conservation import reason_of
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
DEAD = f"{QUEUE}.dead"
pytestmark = pytest.mark.usefixtures("ledger")

BODY = json.dumps([["key"], {}, {}]).encode()
HEADERS: dict[str, Any] = {"task": "act", "id": "hostile"}


def _properties(**changes: Any) -> BasicProperties:
    headers = {**HEADERS, **changes.pop("headers", {})}
    given = {"content_type": "application/json", "content_encoding": "utf-8", "headers": headers, **changes}
    return BasicProperties(**given)


MESSAGES: dict[str, tuple[bytes, BasicProperties, str]] = {
    "empty body": (b"", _properties(), "bad-json"),
    "null": (b"null", _properties(), "bad-body"),
    "a JSON string": (b'"hello"', _properties(), "bad-body"),
    "two parts": (b"[[], {}]", _properties(), "bad-body"),
    "args of the wrong type": (b'["ab", {}, {}]', _properties(), "bad-body"),
    "broken JSON": (b'[["a"], {', _properties(), "bad-json"),
    "not UTF-8": (b'[["\xff\xfe"], {}, {}]', _properties(), "bad-encoding"),
    "deep nesting": (b"[" * 100_000, _properties(), "too-deep"),
    "a huge integer": (b"[[" + b"9" * 100_000 + b"], {}, {}]", _properties(), "bad-json"),
    "pickle": (
        b"\x80\x04N.",
        _properties(content_type="application/x-python-serialize"),
        "content-type-refused",
    ),
    "no content type": (BODY, _properties(content_type=None), "content-type-refused"),
    "a foreign content type": (BODY, _properties(content_type="text/plain"), "content-type-refused"),
    "no headers": (BODY, BasicProperties(content_type="application/json"), "missing-header"),
    "no id": (
        BODY,
        BasicProperties(content_type="application/json", headers={"task": "act"}),
        "missing-header",
    ),
    "an id of the wrong type": (BODY, _properties(headers={"id": 5}), "bad-headers"),
    "retries of the wrong type": (BODY, _properties(headers={"retries": "many"}), "bad-headers"),
    "an unknown task": (BODY, _properties(headers={"task": "os.system"}), "unknown-task"),
    "a task name that moves the cursor": (BODY, _properties(headers={"task": "x\x1b[2J\ny"}), "unknown-task"),
    "a body that is not compressed": (
        BODY,
        _properties(headers={"compression": "application/x-gzip"}),
        "bad-compression",
    ),
    "an unknown compression": (BODY, _properties(headers={"compression": "rot13"}), "bad-compression"),
    "a bomb": (
        zlib.compress(b"[" + b" " * 300_000_000 + b"]"),
        _properties(headers={"compression": "application/x-gzip"}),
        "decompress-bomb",
    ),
    "too large": (b"[" + b" " * 16_000_000 + b"]", _properties(), "too-large"),
    "unfit arguments": (b'[[], {"no": 1}, {}]', _properties(), "invalid-arguments"),
}


@pytest.mark.timeout(120)
def test_promise_8_whatever_cannot_be_read_is_kept_and_the_worker_goes_on(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Rows B031, U047."""
    limits = {"AMQP_TASKS_MAX_MESSAGE_BYTES": "15000000"}
    worker = worker_process("-c", "2", app=APP, env=limits)
    pids = set(worker.children())
    for body, properties, _ in MESSAGES.values():
        raw_client.channel.basic_publish("", QUEUE, body, properties)

    assert client.act("neighbour").get(timeout=30) == "neighbour"
    eventually(lambda: raw_client.depth(DEAD) == len(MESSAGES), within=10)

    found = Counter((message.body, reason_of(message)) for message in raw_client.drain(DEAD))
    assert found == Counter((body, reason) for body, _, reason in MESSAGES.values())
    assert set(worker.children()) == pids
    assert "\x1b" not in worker.output
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == 0
