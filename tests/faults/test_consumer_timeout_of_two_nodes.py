"""A task outlives the broker's consumer timeout, and its redelivery goes to another node: that does not start it beside the first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Ledger, PrivateNode, RawClient, WorkerProcess, WorkerProcesses, eventually
from support.consumer_timeout import consumer_timeout
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

TIMEOUT = 4
"""Seconds."""
HELD = "its redelivery is held"


@pytest.fixture(autouse=True)
def _short(private_node: PrivateNode) -> Iterator[None]:
    with consumer_timeout(private_node, TIMEOUT * 1000):
        yield


PREFORK, SOLO = ("-c", "1"), ("-P", "solo")


class Nodes:
    """Two of them; the first runs the long task in its only slot, so that the second gets the redelivery."""

    def __init__(
        self,
        start: WorkerProcesses,
        client: WorkerClient,
        ledger: Ledger,
        folder: Path,
        pools: tuple[tuple[str, ...], tuple[str, ...]],
    ) -> None:
        env = {
            "AMQP_TASKS_BROKER_CONSUMER_TIMEOUT": str(TIMEOUT),
            "AMQP_TASKS_WORKER_STOP_TIMEOUT": "1",
        }
        self.gate = folder / "gate"
        first, second = pools
        self.first = start(*first, "-n", "first@test", env=env)
        self.result = client.act("long", "wait", str(self.gate))
        ledger.wait_for("start", "long")
        self.second = start(*second, "-n", "second@test", env=env)

    def wait_until_held(self) -> None:
        """The second node has got the redelivery; the first one may have had it in between."""
        self.second.wait_output(HELD, within=30)


@pytest.fixture
def nodes(
    worker_process: WorkerProcesses,
    private_client: WorkerClient,
    ledger: Ledger,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Nodes:
    return Nodes(
        worker_process, private_client, ledger, tmp_path, getattr(request, "param", (PREFORK, PREFORK))
    )


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [(PREFORK, PREFORK), (SOLO, PREFORK), (PREFORK, SOLO)], indirect=True)
def test_promise_13_a_redelivery_to_another_node_is_not_started_and_is_acked_at_the_end_of_the_run(
    nodes: Nodes, private_client: WorkerClient, private_raw: RawClient, ledger: Ledger
) -> None:
    nodes.wait_until_held()

    assert private_client.act("neighbour").get(timeout=10) == "neighbour"
    nodes.gate.touch()
    assert nodes.result.get(timeout=10) == "long"
    nodes.second.wait_output("had finished; its redelivery is acked", within=10)

    _end(nodes.first, nodes.second)
    assert ledger.counts("start") == {"long": 1, "neighbour": 1}
    assert private_raw.depth(QUEUE) == 0


@pytest.mark.slow
def test_promise_13_the_run_that_ended_with_its_process_is_started_by_the_node_that_held_it(
    nodes: Nodes, private_raw: RawClient, ledger: Ledger
) -> None:
    nodes.wait_until_held()

    # The whole machine would be believed for some minutes; a process of it is known to be dead at once.
    (runner,) = {entry.pid for entry in ledger.entries("start")}
    os.kill(runner, signal.SIGKILL)
    eventually(lambda: ledger.counts("start")["long"] == 2, within=15)
    nodes.gate.touch()
    assert nodes.result.get(timeout=10) == "long"

    _end(nodes.first, nodes.second)
    assert ledger.counts("done") == {"long": 1}


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [(PREFORK, PREFORK), (SOLO, PREFORK)], indirect=True)
def test_promise_13_the_run_that_a_stopped_node_did_not_finish_is_started_by_the_node_that_held_it(
    nodes: Nodes, private_raw: RawClient, ledger: Ledger
) -> None:
    nodes.wait_until_held()

    nodes.first.signal(signal.SIGTERM)
    assert nodes.first.wait(10) == 1
    eventually(lambda: ledger.counts("start")["long"] == 2, within=10)
    nodes.gate.touch()
    assert nodes.result.get(timeout=10) == "long"

    _end(nodes.second)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_promise_13_the_run_of_a_machine_that_died_is_started_by_the_other_when_its_lease_is_over(
    nodes: Nodes, private_raw: RawClient, ledger: Ledger
) -> None:
    nodes.wait_until_held()

    nodes.first.kill_all()
    eventually(lambda: ledger.counts("start")["long"] == 2, within=300)
    nodes.gate.touch()
    assert nodes.result.get(timeout=10) == "long"

    _end(nodes.second)
    assert ledger.counts("done") == {"long": 1}


def _end(*workers: WorkerProcess) -> None:
    for worker in workers:
        assert worker.stop() == 0
