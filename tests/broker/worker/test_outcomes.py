"""What becomes of a task and its message, path by path: each delivery is settled once."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pika.exceptions import NackError

from amqp_tasks.errors import NotRegistered, RemoteError, TaskError, TaskExpired, TaskRevokedError
from amqp_tasks.transport import TopologyMode
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import reason_of
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")
DEAD = f"{QUEUE}.dead"
POOLS = ("prefork", "threads", "solo")


@pytest.mark.parametrize("pool", POOLS)
def test_outcomes_reach_the_caller_and_the_queue_is_empty_after(
    client: WorkerClient, vhost: Vhost, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    worker = worker_process("-P", pool, app=APP)

    assert client.act("fine").get(timeout=10) == "fine"
    with pytest.raises((RemoteError, ValueError), match="bad fails"):
        client.act("bad", "fail").get(timeout=10)
    with pytest.raises((RemoteError, MemoryError)):
        client.act("memory", "no-memory").get(timeout=10)
    with pytest.raises((RemoteError, RuntimeError), match="SystemExit"):
        client.act("exit", "sys-exit", 3).get(timeout=10)
    with pytest.raises(Exception, match=r"result.*object"):
        client.act("odd", "return", "object").get(timeout=10)
    assert client.act("still alive").get(timeout=10) == "still alive"

    eventually(lambda: vhost.queue(QUEUE)["messages"] == 0, within=10)
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == raw_client.depth(DEAD) == 0


def test_a_result_that_is_too_large_becomes_a_failure_that_says_so(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    worker_process(
        "-c",
        "1",
        app=APP,
        env={"AMQP_TASKS_MAX_MESSAGE_BYTES": "100000", "AMQP_TASKS_WARN_MESSAGE_BYTES": "50000"},
    )

    with pytest.raises(Exception, match=r"100000|too large"):
        client.act("huge", "return", 200_000).get(timeout=10)


def test_a_failure_that_its_reply_queue_refuses_is_kept_among_the_dead_letters(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    raw_client.declare("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    with suppress(NackError):
        while True:
            raw_client.publish("full")
    for key, action in (("bad", "fail"), ("fine", "ok")):
        client.act(key, action, reply_to="full")
    client.app.send_task("unknown", reply_to="full")
    worker = worker_process("-P", "threads", "-c", "3", app=APP)

    eventually(lambda: raw_client.depth(DEAD) == 2, within=20)
    eventually(lambda: raw_client.depth(QUEUE) == 0, within=20)
    assert worker.stop(within=30) == 0
    dead = [raw_client.get(DEAD), raw_client.get(DEAD)]
    assert sorted(map(reason_of, dead)) == ["failed", "unknown-task"]
    assert raw_client.depth(DEAD) == 0


def test_a_caller_who_is_gone_does_not_hold_the_delivery(
    client: WorkerClient, vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process("-c", "1", app=APP)
    with WorkerClient(vhost.url) as leaving:
        leaving.act("orphaned", "wait", str(gate))
        ledger.wait_for("start", "orphaned")
    gate.touch()

    assert client.act("next").get(timeout=10) == "next"
    eventually(lambda: vhost.queue(QUEUE)["messages"] == 0, within=10)
    assert worker.stop() == 0


def test_a_failure_whose_caller_is_gone_is_kept_among_the_dead_letters(
    client: WorkerClient, vhost: Vhost, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    with WorkerClient(vhost.url) as leaving:
        leaving.act("bad", "fail")
        leaving.act("fine", "ok")
    worker = worker_process("-c", "1", app=APP)

    eventually(lambda: raw_client.depth(DEAD) == 1, within=20)
    assert client.act("next").get(timeout=10) == "next"
    assert worker.stop() == 0
    dead = raw_client.get(DEAD)
    assert dead.properties.headers is not None
    assert (reason_of(dead), dead.properties.headers["x-error-type"]) == ("failed", "ValueError")
    assert raw_client.depth(DEAD) == 0


def test_an_unknown_task_is_dead_lettered_and_its_caller_told(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)

    with pytest.raises(NotRegistered, match=r"no task 'no\.such\.task': import its module there"):
        client.app.send_task("no.such.task").get(timeout=10)

    assert reason_of(raw_client.get(DEAD)) == "unknown-task"


def test_a_task_is_set_aside_once_where_nothing_is_declared_and_the_events_have_no_exchange(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    with client.app as app:
        app.transport.ensure_topology(app.topology, mode=TopologyMode.DECLARE)
        worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_TOPOLOGY": "none"})

        with pytest.raises(NotRegistered):
            app.send_task("no.such.task").get(timeout=10)
        worker.wait_output("dead letters to nobody")

    assert worker.stop() == 0
    assert raw_client.depth(DEAD) == 1


def test_wrong_arguments_from_a_foreign_sender_are_dead_lettered(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)

    with pytest.raises((TaskError, TypeError)):
        client.app.send_task("act", (), {"nonsense": 1}).get(timeout=10)

    assert reason_of(raw_client.get(DEAD)) == "invalid-arguments"


def test_an_expired_task_is_not_run_and_its_caller_told(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
) -> None:
    """Row B052."""
    gate = tmp_path / "gate"
    worker = worker_process("-c", "1", "--prefetch-multiplier", "2", app=APP)
    client.act("long", "wait", str(gate))
    ledger.wait_for("start", "long")
    # It reaches the worker in time and expires in the ready buffer.
    expires = datetime.now(UTC) + timedelta(seconds=0.4)
    late = client.act("late", expires=expires)
    client.app.transport.queue_status(QUEUE)
    eventually(lambda: datetime.now(UTC) > expires, within=2)
    gate.touch()

    with pytest.raises(TaskRevokedError):
        late.get(timeout=10)
    assert ledger.counts("start")["late"] == 0
    assert worker.stop() == 0
    assert raw_client.depth(DEAD) == 0


def test_an_early_ack_leaves_the_queue_before_the_task_ends(
    client: WorkerClient, vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process("-c", "1", app=APP)
    result = client.app.send_task("act_early", ("early", "wait", str(gate)))
    ledger.wait_for("start", "early")

    eventually(lambda: vhost.queue(QUEUE)["messages"] == 0, within=10)
    gate.touch()
    assert result.get(timeout=10) == "early"
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_task_prints_is_logged_with_its_id(
    client: WorkerClient, worker_process: WorkerProcesses, pool: str
) -> None:
    worker = worker_process("-P", pool, app=APP)

    result = client.act("talker", "print", "hello\x1b[31m there")
    result.get(timeout=10)

    line = worker.wait_output(r"hello.*there")
    assert "WARNING" in line
    assert result.id in line
    assert "\x1b[31m" not in line


def test_what_expires_before_any_worker_is_there_is_told_and_no_dead_letter(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Row S070 (and B052): one rule, whoever is first (ADR 0007)."""
    late = [client.act(f"late {number}", expires=0) for number in range(20)]
    good = client.act("good")
    assert raw_client.depth(QUEUE) == 21

    worker_process("-c", "1")

    assert good.get(timeout=20) == "good"
    for result in late:
        with pytest.raises(TaskExpired):
            result.get(timeout=20)
        assert result.state == "REVOKED"
    assert raw_client.depth(QUEUE) == raw_client.depth(f"{QUEUE}.dead") == 0
