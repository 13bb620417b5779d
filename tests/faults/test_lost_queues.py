"""A worker's queue is deleted, declared otherwise, or may not be consumed for a while: it comes back to work by itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import assert_conserved
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
    assert_conserved({"before", *keys}, ledger, raw_client)


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
    assert_conserved({"quorum", "classic"}, ledger, raw_client)


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
    with RawClient(vhost.url) as raw:
        assert_conserved({"before", *(f"during-{number}" for number in range(10))}, ledger, raw)
