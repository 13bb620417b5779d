"""A worker's queue is deleted, declared otherwise, or may not be consumed for a while: it comes back to work by itself."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

import pytest

from amqp_tasks.transport import TopologyMode
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.worker_app import QUEUE
from support.worker_client import WorkerClient


def test_promise_06_a_queue_deleted_under_a_worker_is_consumed_again_when_it_is_back(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """F10. What lay in the queue goes with it; here nothing does."""
    worker = worker_process("-c", "2")
    assert client.act("before").get(timeout=10) == "before"
    eventually(lambda: raw_client.depth(QUEUE) == 0)

    raw_client.delete(QUEUE)
    # RabbitMQ 3.10 does not cancel the consumers of a queue that is declared again in the same moment.
    worker.wait_output(f"queue '{QUEUE}' cannot be consumed now")
    keys = [f"key-{number}" for number in range(10)]
    results = [client.act(key) for key in keys]

    assert [result.get(timeout=30) for result in results] == keys
    assert worker.stop() == 0


def test_promise_19_a_queue_redeclared_with_other_arguments_under_a_worker_is_consumed_on(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """F11: a difference is refused at the start of a worker; one that runs loses nothing by it."""
    first = client.act("quorum")
    # One that may declare brings the queue back by itself, as it was.
    worker = worker_process("-c", "2", env={"AMQP_TASKS_TOPOLOGY": "check"})
    assert first.get(timeout=10) == "quorum"

    raw_client.delete(QUEUE)
    worker.wait_output(f"queue '{QUEUE}' cannot be consumed now")
    raw_client.declare(QUEUE)

    assert client.act("classic").get(timeout=30) == "classic"
    assert worker.stop() == 0


def test_promise_06_a_worker_whose_permissions_are_taken_away_works_again_when_they_are_back(
    client: WorkerClient, vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    url = vhost.limited_url(configure=".*", write=".*", read=".*")
    user = urlsplit(url).username or ""
    worker = worker_process("-c", "2", env={"AMQP_TASKS_BROKER_URL": url})
    assert client.act("before").get(timeout=10) == "before"

    vhost.management.permit(user, vhost.name, configure="^$", write="^$", read="^$")
    # Permissions are looked at when something is opened: all connections are closed, the callers' as well.
    vhost.close_connections(at_least=3)
    worker.wait_output("ACCESS_REFUSED", within=20)
    during = [client.act(f"during-{number}") for number in range(10)]
    vhost.management.permit(user, vhost.name)

    assert [result.get(timeout=30) for result in during] == [f"during-{number}" for number in range(10)]
    assert worker.stop() == 0


@pytest.mark.long
@pytest.mark.timeout(180)
def test_promise_06_a_queue_that_is_replaced_at_once_under_a_busy_worker_is_consumed_on(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """RabbitMQ 3.10 tells nobody. The other queue never leaves the worker idle, and loses nothing by what is done about it."""
    worker = worker_process("-c", "2", "-Q", f"{QUEUE},busy")
    assert client.act("before").get(timeout=10) == "before"
    eventually(lambda: raw_client.depth(QUEUE) == 0)
    is_over = threading.Event()
    busy: list[str] = []

    def keep_busy() -> None:
        while not is_over.wait(0.02):
            key = f"busy-{len(busy)}"
            client.act(key, "sleep", 0.02, queue="busy", ignore_result=True)
            busy.append(key)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        raw_client.delete(QUEUE)
        client.app.transport.ensure_topology(client.app.topology, mode=TopologyMode.DECLARE)
        keys = [f"key-{number}" for number in range(10)]
        results = [client.act(key) for key in keys]

        assert [result.get(timeout=100) for result in results] == keys
    finally:
        is_over.set()
        thread.join(10)
    eventually(lambda: set(busy) <= set(ledger.keys("done")), within=20)
    assert worker.stop() == 0
    assert set(ledger.counts("start").values()) == {1}
