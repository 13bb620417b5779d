"""Signed messages with real workers: forged ones are set aside, keys are exchanged, no key is ever shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from acceptance.project import Project
from amqp_tasks import App, chain, chord
from amqp_tasks.errors import TaskRevokedError
from amqp_tasks.message import JOURNAL_NAME, SIGNATURE_HEADER
from support import RawClient, RawMessage, Vhost, WorkerProcess, WorkerProcesses, eventually

SECRET = "s3cr3t-canary-" * 3
NEW = "n" * 40
KEYS = f"old:{SECRET}"
PROJECT = """
    from amqp_tasks import App

    app = App("proj", task_default_queue="hipri")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task(bind=True)
    def later(self, value: int) -> int:
        if not self.request.retries:
            raise self.retry(countdown=1)
        return value

    @app.task(bind=True)
    def soon(self, value: int) -> int:
        if not self.request.retries:
            raise self.retry(countdown=0)
        return value
"""


@pytest.fixture
def signed(project: Project) -> Project:
    """The project whose commands and workers have the key."""
    project.write("proj.py", PROJECT)
    project.environment |= {"AMQP_TASKS_SECURITY_SIGNING_KEYS": KEYS, "AMQP_TASKS_TASK_DELAYED_INDEX": "true"}
    return project


@pytest.fixture
def caller(vhost: Vhost) -> Iterator[App]:
    """Who calls, with the key."""
    settings: dict[str, Any] = {"security_signing_keys": KEYS, "task_delayed_index": True}
    with App("proj", broker=vhost.url, task_default_queue="hipri", **settings) as made:
        yield made


def start(
    signed: Project, worker_process: WorkerProcesses, *options: str, **environment: str
) -> WorkerProcess:
    """A worker of the project."""
    return worker_process(
        "-c", "2", "-l", "debug", *options, app="proj", env=signed.environment | environment, cwd=signed.path
    )


def put(raw_client: RawClient, message: RawMessage, **changes: Any) -> None:
    """Publish a copy of a message with other headers."""
    names = ("content_type", "content_encoding", "correlation_id", "reply_to", "priority", "message_id")
    kept = {name: value for name in names if (value := getattr(message.properties, name)) is not None}
    raw_client.publish("hipri", message.body, {**message.headers, **changes}, **kept)


def reasons(signed: Project) -> list[str]:
    return sorted(letter["reason"] for letter in signed.run("dlq", "list", "--json").data)


def test_everything_that_the_app_sends_itself_is_accepted(
    signed: Project, caller: App, worker_process: WorkerProcesses
) -> None:
    worker = start(signed, worker_process)
    add, total = caller.signature("proj.add"), caller.signature("proj.total")

    results = [
        caller.send_task("proj.add", (1, 2)),
        caller.send_task("proj.later", (3,)),
        caller.send_task("proj.soon", (3,)),
        caller.send_task("proj.add", (1, 2), countdown=2.2),
        caller.send_task("proj.add", (1, 2), compression="gzip", priority=3, expires=60, headers={"k": [1, {"a": 0.5}]}),
        chain(add.clone((1, 1)), add.clone((1,))).apply_async(),
        chord([add.clone((0, 0)), add.clone((1, 2))], total)(),
    ]  # fmt: skip
    assert [result.get(30) for result in results] == [3] * len(results)
    assert caller.send_many([("proj.add", (n, 0)) for n in range(50)]).get(timeout=30) == list(range(50))
    assert reasons(signed) == []
    assert "not heeded" not in worker.output


def test_forged_messages_are_parked_and_their_neighbours_run(
    signed: Project, caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    signed.run("topology", "apply")
    result = caller.send_task("proj.add", (1, 2), task_id="good")
    message = raw_client.get("hipri")
    without = {name: value for name, value in message.headers.items() if name != SIGNATURE_HEADER}
    put(raw_client, message, id="forged")
    put(raw_client, message, retries=1)
    raw_client.publish("hipri", message.body, without, content_type="application/json", reply_to="reply")
    raw_client.publish(
        "hipri", message.body.replace(b"1", b"7"), message.headers, content_type="application/json"
    )
    put(raw_client, message)
    worker = start(signed, worker_process)

    assert result.get(20) == 3
    eventually(lambda: reasons(signed) == ["bad-signature"] * 3 + ["unsigned"], within=20)
    requeued = signed.run("dlq", "requeue", "--json").data
    assert requeued["requeued"] == 4
    eventually(lambda: reasons(signed) == ["bad-signature"] * 3 + ["unsigned"], within=20)
    assert caller.send_task("proj.add", (2, 2)).get(20) == 4
    assert worker.output.count("security_require_signatures is on") == 2
    assert SECRET not in worker.output


def test_keys_are_exchanged_with_two_workers_and_nothing_is_refused(
    signed: Project, caller: App, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    both = f"{KEYS},new:{NEW}"
    first = start(signed, worker_process, "-n", "first@%h", AMQP_TASKS_SECURITY_SIGNING_KEYS=both)
    second = start(
        signed, worker_process, "-n", "second@%h", AMQP_TASKS_SECURITY_SIGNING_KEYS=f"new:{NEW},{KEYS}"
    )
    with App(
        "proj", broker=vhost.url, task_default_queue="hipri", security_signing_keys=f"new:{NEW},{KEYS}"
    ) as renewed:
        for app in (renewed, renewed):
            calls = [("proj.add", (n, 0)) for n in range(20)]
            assert app.send_many(calls).get(timeout=30) == list(range(20))
        assert renewed.send_task("proj.later", (5,)).get(20) == 5
    with App("proj", broker=vhost.url, task_default_queue="hipri", security_signing_keys=both) as older:
        assert older.send_many([("proj.add", (n, 0)) for n in range(20)]).get(timeout=30) == list(range(20))

    assert reasons(signed) == []
    for worker in (first, second):
        assert worker.stop() == 0
        assert "passed over" not in worker.output


def test_only_signed_commands_are_heeded(
    signed: Project, caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = start(signed, worker_process)
    entry = {
        "kind": "revoke", "id": "e1", "time": 2e9, "sender": "evil@host",
        "facts": {"ids": ["kept"], "terminate": True, "signal": "SIGKILL"},
    }  # fmt: skip
    for _ in range(3):
        raw_client.publish(JOURNAL_NAME, json.dumps(entry).encode(), content_type="application/json")
    assert signed.run("revoke", "unwanted").code == 0
    worker.wait_output("journal: revoke by gen")

    assert caller.send_task("proj.add", (1, 2), task_id="kept").get(20) == 3
    with pytest.raises(TaskRevokedError):
        caller.send_task("proj.add", (1, 2), task_id="unwanted").get(20)
    assert worker.output.count("WARNING") >= 1
    refused = [line for line in worker.output.splitlines() if "evil@host" in line and "WARNING" in line]
    assert len(refused) == 1


def test_the_index_of_delayed_tasks_and_the_pause_of_a_queue_are_signed(
    signed: Project, caller: App, worker_process: WorkerProcesses
) -> None:
    signed.run("topology", "apply")
    caller.send_task("proj.add", (1, 2), task_id="waits", countdown=600)
    eventually(lambda: [row["id"] for row in signed.run("delayed", "--json").data] == ["waits"], within=20)
    assert signed.run("pause", "hipri").code == 0
    worker = start(signed, worker_process)

    worker.wait_output("paused")
    assert signed.run("resume", "hipri").code == 0
    assert caller.send_task("proj.add", (1, 2)).get(20) == 3


@pytest.mark.parametrize(
    "command",
    [["config", "show"], ["config", "show", "--json"], ["report", "--timeout", "1"], ["queues"], ["dlq", "list"]],
    ids=" ".join,
)  # fmt: skip
def test_no_command_shows_a_key(signed: Project, command: list[str]) -> None:
    done = signed.run(*command)
    wrong = signed.run(*command, "--traceback", AMQP_TASKS_SECURITY_SIGNING_KEYS=SECRET)

    assert "old:**" in done.out or command[0] not in ("config", "report")
    assert "expected keys as 'id:secret'" in wrong.out + wrong.err
    assert "s3cr3t" not in done.out + done.err + wrong.out + wrong.err
