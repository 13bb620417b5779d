"""Connections and brokers go away under a worker: what runs goes on, nothing runs beside itself, consuming resumes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support import Ledger, PrivateNode, RawClient, TcpProxy, Vhost, WorkerProcesses, eventually
from support.worker_app import QUEUE
from support.worker_client import WorkerClient
from support.workers import READY

APP = "support.worker_app:app"


def test_promise_06_a_task_that_runs_while_its_connection_is_closed_is_not_run_twice(
    client: WorkerClient,
    vhost: Vhost,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    """Rows U004, U005."""
    worker = worker_process("-c", "3", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()})
    gate = tmp_path / "gate"
    results = [client.act(f"held-{n}", "wait", str(gate)) for n in range(2)]
    ledger.wait_for("start", count=2)

    proxy.cut()
    # The redeliveries have reached a process again, which must hold or adopt them. At least three: RabbitMQ goes on
    # counting a consumer that was cancelled for another prefetch until its deliveries are settled.
    eventually(lambda: raw_client.consumers(QUEUE) >= 3 and raw_client.depth(QUEUE) == 0, within=10)
    client.act("after").get(timeout=10)
    gate.touch()

    assert [result.get(timeout=10) for result in results] == ["held-0", "held-1"]
    eventually(lambda: _unacked(vhost) == 0, within=10)
    assert ledger.counts("start") == {"held-0": 1, "held-1": 1, "after": 1}
    assert worker.stop() == 0


def test_what_runs_when_its_connection_is_closed_does_not_expire_any_more(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    worker = worker_process("-c", "1", "-P", "solo", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()})
    gate = tmp_path / "gate"
    expiry = datetime.now(UTC) + timedelta(seconds=3)
    result = client.act("held", "wait", str(gate), expires=expiry)
    ledger.wait_for("start", "held")
    eventually(lambda: datetime.now(UTC) > expiry, within=10)

    accepted = proxy.accepted
    proxy.cut()
    # The redelivery has reached the process again.
    eventually(
        lambda: (
            proxy.accepted > accepted and raw_client.consumers(QUEUE) == 1 and raw_client.depth(QUEUE) == 0
        ),
        within=10,
    )
    gate.touch()

    assert result.get(timeout=10) == "held"
    assert worker.stop() == 0
    assert ledger.counts("start") == ledger.counts("done") == {"held": 1}


def test_promise_06_a_task_id_of_the_callers_own_that_comes_again_is_not_taken_for_what_had_finished(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    """Rows U002, U004."""
    worker = worker_process("-c", "2", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()})
    # Short ones: each process then holds more messages than it runs.
    client.many([f"short-{n}" for n in range(100)])
    assert client.act("first", task_id="sync-user-5").get(timeout=10) == "first"
    ledger.wait_for("done", count=101)

    # From here on their acks may be lost, as far as the worker knows.
    accepted = proxy.accepted
    proxy.cut()
    eventually(lambda: proxy.accepted >= accepted + 2 and raw_client.consumers(QUEUE) == 2, within=10)
    gate = tmp_path / "gate"
    for name in ("held-0", "held-1"):
        client.act(name, "wait", str(gate))
        ledger.wait_for("start", name)
    second = client.act("second", task_id="sync-user-5")
    # It has waited behind them, and was handed back: what comes next is a redelivery.
    eventually(lambda: raw_client.depth(QUEUE) == 1, within=10)
    gate.touch()

    assert second.get(timeout=10) == "second"
    assert worker.stop() == 0


def test_promise_06_what_reaches_several_queues_is_run_in_each_though_another_node_has_finished_with_its_copy(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    """Rows U002, U004."""
    options, app = ("-c", "1", "--prefetch-multiplier", "10"), "support.fanout_app:app"
    first = worker_process(*options, app=app, env={"AMQP_TASKS_BROKER_URL": proxy.url_for(), "NODE": "a"})
    second = worker_process(*options, app=app, env={"NODE": "b"})
    gate, slot = tmp_path / "gate", tmp_path / "slot"
    client.act("busy", "wait", str(slot), exchange="", routing_key="all.b")
    ledger.wait_for("start", "busy")
    client.act("for all", "wait", str(gate), exchange="all")
    ledger.wait_for("start", "for all")
    # It waits behind the busy one, and is handed back: what comes next is a redelivery.
    second.wait_output("received", count=2)
    eventually(lambda: raw_client.depth("all.b") == 1, within=10)

    proxy.cut()
    second.wait_output("journal: claim")
    gate.touch()
    second.wait_output("journal: release")
    slot.touch()

    ledger.wait_for("done", "for all", count=2)
    assert (first.stop(), second.stop()) == (0, 0)


def test_promise_08_what_is_refused_reaches_the_dead_letters_of_its_queue_though_the_refusal_was_lost(
    vhost: Vhost, worker_process: WorkerProcesses, raw_client: RawClient, proxy: TcpProxy
) -> None:
    """Rows U002, U011. Without dead letters of ours it is the queue that keeps what a worker refuses."""
    raw_client.declare("kept")
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "kept"}
    raw_client.declare(QUEUE, {"x-queue-type": "quorum", **dead})
    none = {"AMQP_TASKS_TASK_DEAD_LETTER_QUEUES": "false", "AMQP_TASKS_TOPOLOGY": "none"}
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for(), **none})

    # What the worker says is swallowed from here on.
    proxy.half_open(to_client=False)
    with WorkerClient(vhost.url, topology="none") as client:
        client.app.send_task("act", (), ignore_result=True)
    worker.wait_output("is not run: invalid-arguments")
    proxy.resume()
    proxy.cut()

    eventually(lambda: raw_client.depth("kept") == 1, within=10)
    assert worker.stop() == 0


def test_promise_13_what_is_refused_while_its_redelivery_is_held_is_refused_there_and_not_run_again(
    vhost: Vhost,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    """Row U011."""
    raw_client.declare("kept")
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "kept"}
    raw_client.declare(QUEUE, {"x-queue-type": "quorum", **dead})
    settings = {
        "AMQP_TASKS_TASK_DEAD_LETTER_QUEUES": "false",
        "AMQP_TASKS_TASK_ACKS_ON_FAILURE": "false",
        "AMQP_TASKS_TOPOLOGY": "none",
        "AMQP_TASKS_BROKER_URL": proxy.url_for(),
    }
    worker = worker_process("-c", "4", app=APP, env=settings)
    gate, held = tmp_path / "gate", {f"held-{n}" for n in range(2)}
    with WorkerClient(vhost.url, topology="none") as client:
        client.many(sorted(held), "wait and fail", str(gate))
    ledger.wait_for("start", count=2)

    proxy.cut()
    # The redeliveries have reached a process again, which holds or adopts them.
    eventually(lambda: raw_client.consumers(QUEUE) >= 4 and raw_client.depth(QUEUE) == 0, within=10)
    gate.touch()

    eventually(lambda: raw_client.depth("kept") == 2, within=15)
    assert ledger.counts("start") == dict.fromkeys(held, 1)
    assert worker.stop() == 0


def test_promise_06_a_dead_letter_that_was_moved_back_by_other_tools_is_not_taken_for_what_had_finished(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    proxy: TcpProxy,
    tmp_path: Path,
) -> None:
    """Rows U002, U004."""
    worker = worker_process(
        "-c", "1", "--prefetch-multiplier", "10", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()}
    )
    client.act("fails", "fail", ignore_result=True)
    letter = raw_client.get(f"{QUEUE}.dead", within=10)

    # From here on its ack may be lost, as far as the worker knows.
    accepted = proxy.accepted
    proxy.cut()
    eventually(lambda: proxy.accepted > accepted and raw_client.consumers(QUEUE) == 1, within=10)
    gate = tmp_path / "gate"
    client.act("busy", "wait", str(gate))
    ledger.wait_for("start", "busy")
    properties = {name: value for name, value in vars(letter.properties).items() if name != "headers"}
    raw_client.publish(QUEUE, letter.body, letter.headers, **properties)
    # It waits behind the busy one, and is handed back: what comes next is a redelivery.
    worker.wait_output("received", count=3)
    eventually(lambda: raw_client.depth(QUEUE) == 1, within=10)
    gate.touch()

    ledger.wait_for("start", "fails", count=2)
    raw_client.get(f"{QUEUE}.dead", within=10)
    assert worker.stop() == 0


def test_promise_06_closed_connections_lose_nothing(
    client: WorkerClient, vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    """Rows U002, U009, U013."""
    sent = {f"key-{n}" for n in range(400)}
    worker = worker_process("-c", "2", app=APP)
    client.many(sorted(sent), "sleep", 0.01)
    ledger.wait_for("done", count=20)

    for _ in range(2):
        vhost.close_connections(at_least=2)

    eventually(lambda: set(ledger.keys("done")) == sent, within=20)
    assert worker.stop() == 0


def test_promise_12_a_half_open_connection_is_noticed_by_worker_and_producer(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, proxy: TcpProxy
) -> None:
    """Rows U001, U037, U038, U039, U067."""
    settings = {"AMQP_TASKS_BROKER_URL": proxy.url_for(), "AMQP_TASKS_BROKER_HEARTBEAT": "2"}
    worker = worker_process("-c", "2", app=APP, env=settings)
    with WorkerClient(proxy.url_for(), broker_heartbeat=2) as client:
        assert client.act("before").get(timeout=10) == "before"
        silent, before = proxy.connection_count, proxy.accepted

        proxy.half_open()
        with ThreadPoolExecutor(1) as caller:
            during = caller.submit(client.act, "during")
            # Each gives up a connection that nothing comes from, in the middle of a call or not.
            eventually(lambda: proxy.accepted >= before + silent, within=25)
            proxy.cut()
            proxy.resume()

            assert during.result(20).get(timeout=20) == "during"
        assert client.act("after").get(timeout=20) == "after"
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_worker_started_before_its_broker_works_when_it_is_there(
    private_node: PrivateNode, private_client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    private_client.act("early")
    # As in an outage: its tables must be on its disk, which a container's clean stop would take much longer for.
    private_node.ctl("eval", "mnesia:sync_log().")
    private_node.kill()
    worker = worker_process("-c", "2", app=APP, ready="no broker yet")

    private_node.start()

    worker.wait_output(READY, within=30)
    ledger.wait_for("done", "early")
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_stop_while_the_broker_is_away_keeps_its_deadline(
    private_node: PrivateNode,
    private_client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
) -> None:
    worker = worker_process("-c", "2", app=APP, env={"AMQP_TASKS_WORKER_STOP_TIMEOUT": "1"})
    gate = tmp_path / "gate"
    private_client.act("stuck", "wait", str(gate))
    ledger.wait_for("start", "stuck")

    private_node.kill()
    gate.touch()
    ledger.wait_for("done", "stuck")

    # Its outcome cannot be stored, so it is not clean; the task comes again.
    assert worker.stop(within=15) == 1
    assert worker.survivors(within=2.0) == []


def _unacked(vhost: Vhost) -> int:
    return int(vhost.queue(QUEUE)["messages_unacknowledged"])
