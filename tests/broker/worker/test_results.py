"""Results as they are sent: the states of a task, and what the settings say of their messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support import RawClient, RawMessage, Vhost, WorkerProcesses
from support.worker_client import WorkerClient

pytestmark = pytest.mark.usefixtures("ledger")
ANSWERS = "answers"


def record_of(message: RawMessage) -> dict[str, Any]:
    """The record in a result that is JSON."""
    record = json.loads(message.body)
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize(
    ("task", "env"), [("act_tracked", {}), ("act", {"AMQP_TASKS_TASK_TRACK_STARTED": "true"})]
)
def test_the_start_of_a_task_is_told_where_it_is_tracked(
    client: WorkerClient,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    task: str,
    env: dict[str, str],
) -> None:
    worker = worker_process("-c", "1", "-n", "tracker@here", env=env)
    raw_client.declare(ANSWERS)

    client.app.send_task(task, ("key",), reply_to=ANSWERS)

    started, ended = (record_of(raw_client.get(ANSWERS)) for _ in range(2))
    assert (started["status"], ended["status"]) == ("STARTED", "SUCCESS")
    assert started["result"]["hostname"] == "tracker@here"
    assert started["result"]["pid"] in worker.children()


def test_the_start_of_a_task_is_not_told_otherwise(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1")
    raw_client.declare(ANSWERS)

    client.app.send_task("act", ("key",), reply_to=ANSWERS)

    assert record_of(raw_client.get(ANSWERS))["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("setting", "value", "shown", "usual", "wanted"),
    [
        ("SERIALIZER", "msgpack", lambda sent: sent.properties.content_type, "application/json", "application/x-msgpack"),
        ("COMPRESSION", "zlib", lambda sent: sent.headers.get("compression"), None, "application/x-gzip"),
        ("PERSISTENT", "false", lambda sent: sent.properties.delivery_mode, 2, 1),
        ("EXTENDED", "false", lambda sent: b'"args"' in sent.body, True, False),
    ],
)  # fmt: skip
def test_results_are_sent_as_the_settings_of_the_worker_say(
    client: WorkerClient,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    setting: str,
    value: str,
    shown: Callable[[RawMessage], Any],
    usual: Any,
    wanted: Any,
) -> None:
    raw_client.declare(ANSWERS)
    accept = {"AMQP_TASKS_ACCEPT_CONTENT": "json,msgpack"}

    found: list[Any] = []
    for env in (accept, accept | {f"AMQP_TASKS_RESULT_{setting}": value}):
        worker = worker_process("-c", "1", env=env)
        client.app.send_task("act", ("key",), reply_to=ANSWERS)
        found.append(shown(raw_client.get(ANSWERS)))
        assert worker.stop() == 0

    assert found == [usual, wanted]


def test_a_compressed_result_in_another_serializer_is_read(
    vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    env = {
        "AMQP_TASKS_ACCEPT_CONTENT": "json,msgpack",
        "AMQP_TASKS_RESULT_SERIALIZER": "msgpack",
        "AMQP_TASKS_RESULT_COMPRESSION": "bzip2",
    }
    worker_process("-c", "1", env=env)

    with WorkerClient(vhost.url, result_accept_content=["json", "msgpack"]) as client:
        result = client.act("张三")
        assert result.get(timeout=15) == "张三"

    assert result.date_done is not None
    assert result.date_done.tzinfo is not None
    assert abs((datetime.now(UTC) - result.date_done).total_seconds()) < 3600
