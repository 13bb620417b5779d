"""A task runs longer than the broker's consumer timeout: it is run once, and its neighbours go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from support import Ledger, PrivateNode, RawClient, WorkerProcesses, eventually
from support.consumer_timeout import consumer_timeout
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

LIMIT = 2.0
"""Seconds that the neighbours may stand still."""
TIMEOUT = 1000
"""Milliseconds."""


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_promise_13_a_task_longer_than_the_consumer_timeout_is_run_once_and_neighbours_go_on(
    private_node: PrivateNode,
    private_client: WorkerClient,
    private_raw: RawClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    pool: str,
) -> None:
    """Row U015."""
    with consumer_timeout(private_node, TIMEOUT):
        worker = worker_process("-P", pool, "-c", "3")
        gate = tmp_path / "gate"
        long = private_client.act("long", "wait", str(gate))
        ledger.wait_for("start", "long")
        with _neighbours(private_client) as sent:
            # Taken back by the broker, delivered again and held or adopted, and that more than once.
            eventually(lambda: _redelivered(private_node) >= 3, within=40)
            gate.touch()
            assert long.get(timeout=10) == "long"
        eventually(lambda: set(ledger.keys("done")) == {"long", *sent}, within=10)

        assert worker.stop() == 0

    counts = ledger.counts("start")
    gap = _longest_gap(ledger)
    print(
        f"{pool}: {len(sent)} neighbours, none for {gap:.2f} s at most, started twice: {[k for k, c in counts.items() if c > 1]}"
    )
    assert counts["long"] == 1
    assert set(counts.values()) == {1}
    assert gap < LIMIT


@pytest.mark.long
def test_promise_13_a_worker_of_one_slot_acks_the_redelivery_when_the_run_has_ended(
    private_node: PrivateNode,
    private_client: WorkerClient,
    private_raw: RawClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
) -> None:
    with consumer_timeout(private_node, TIMEOUT):
        worker = worker_process("-P", "solo")
        gate = tmp_path / "gate"
        long = private_client.act("long", "wait", str(gate))
        ledger.wait_for("start", "long")

        # Nothing takes it while the one slot is busy.
        eventually(lambda: private_raw.depth(QUEUE) == 1, within=20)
        gate.touch()
        assert long.get(timeout=10) == "long"
        assert private_client.act("after").get(timeout=10) == "after"
        eventually(lambda: private_raw.depth(QUEUE) == 0, within=10)

        assert worker.stop() == 0

    assert ledger.counts("start") == {"long": 1, "after": 1}


@pytest.mark.slow
def test_a_task_that_was_taken_back_beyond_the_delivery_limit_ends_its_run_and_is_kept_as_well(
    private_node: PrivateNode,
    private_raw: RawClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    with (
        consumer_timeout(private_node, TIMEOUT),
        WorkerClient(private_node.url, task_delivery_limit=1) as client,
    ):
        worker = worker_process("-P", "threads", "-c", "2", env={"AMQP_TASKS_TASK_DELIVERY_LIMIT": "1"})
        long = client.act("long", "wait", str(gate))

        eventually(lambda: private_raw.depth(f"{QUEUE}.dead") == 1, within=30)
        gate.touch()
        assert long.get(timeout=10) == "long"

        assert worker.stop() == 0
    assert ledger.counts("start") == {"long": 1}
    headers = private_raw.get(f"{QUEUE}.dead").properties.headers
    assert headers is not None
    assert headers["x-first-death-reason"] == "delivery_limit"


def _redelivered(node: PrivateNode) -> int:
    return int(node.vhost.queue(QUEUE).get("message_stats", {}).get("redeliver", 0))


@contextmanager
def _neighbours(client: WorkerClient) -> Iterator[list[str]]:
    """Short tasks, one after the other, some each second."""
    sent: list[str] = []
    is_over = threading.Event()

    def send() -> None:
        while not is_over.wait(0.05):
            key = f"short-{len(sent)}"
            client.act(key, "sleep", 0.01)
            sent.append(key)

    thread = threading.Thread(target=send, name="neighbours")
    thread.start()
    try:
        yield sent
    finally:
        is_over.set()
        thread.join(30)


def _longest_gap(ledger: Ledger) -> float:
    ends = [entry.at for entry in ledger.entries("done") if entry.key != "long"]
    return max(later - earlier for earlier, later in pairwise(ends))
