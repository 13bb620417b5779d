"""A node of a three-node cluster dies; workers and callers have the addresses of all three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks.errors import ResultLost
from support import Ledger, WorkerProcesses, eventually
from support.clusters import Cluster, ClusterVhost, in_own_vhost, running_cluster
from support.conservation import Outcome
from support.fault_run import fault_run
from support.nodes import Node
from support.observing import tell
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LIMIT = 2.0
"""Seconds of promise 11: from when the task queue has another leader to the first task that begins."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, each of which a test may break."""
    with running_cluster() as made:
        yield made


@pytest.fixture
def own(cluster: Cluster) -> Iterator[ClusterVhost]:
    """A virtual host on it."""
    with in_own_vhost(cluster) as made:
        yield made


def test_promises_01_04_06_the_death_of_the_task_queues_leader_loses_and_refuses_nothing(
    own: ClusterVhost, tmp_path: Path
) -> None:
    outcome = _with_the_leader_killed(own, tmp_path, callers_at=own.cluster.nodes[0])

    assert set(outcome.statuses) == {0}


@pytest.mark.long
@pytest.mark.parametrize(
    "callers_at",
    [
        pytest.param(0, id="callers-at-the-leader"),
        pytest.param(1, id="callers-elsewhere"),
    ],
)
def test_promise_11_tasks_are_run_again_within_two_seconds_of_the_election_of_another_leader(
    own: ClusterVhost, tmp_path: Path, callers_at: int
) -> None:
    outcome = _with_the_leader_killed(own, tmp_path, callers_at=own.cluster.nodes[callers_at])

    assert outcome.pause_after_return <= LIMIT


def _with_the_leader_killed(own: ClusterVhost, folder: Path, *, callers_at: Node) -> Outcome:
    leader, _, third = own.cluster.nodes
    with fault_run(
        own.urls(first=leader),
        caller_url=own.urls(first=callers_at),
        check_url=own.url_of(third),
        folder=folder,
        gets=(30.0,),
    ) as run:
        run.start()
        assert own.node_of(QUEUE) is leader
        assert len(own.queue(QUEUE)["members"]) == 3

        with run.fault("leader killed"):
            leader.kill()
            eventually(lambda: own.node_of(QUEUE) is not leader, within=30)
        run.wait_done(50)
        outcome = run.finish()

    print(f"back after {outcome.pause_after_return:.2f} s, slowest call {outcome.slowest_submit:.2f} s")
    assert outcome.refused | outcome.unknown == set()
    assert outcome.no_values == {}
    return outcome


def test_promise_14_delayed_tasks_and_their_results_survive_the_node_that_led_all_their_queues(
    own: ClusterVhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    first, second, _ = own.cluster.nodes
    keys = [f"key-{number}" for number in range(20)]
    with WorkerClient(own.urls(first=first)) as client:
        # Not due when the node dies: what it moves in that moment another may move again.
        results = {key: client.act(key, countdown=8 + number % 3) for number, key in enumerate(keys)}
        assert own.node_of("amqp_tasks.delay.0.8") is first

        first.kill()
        worker = worker_process("-c", "1", env={"AMQP_TASKS_BROKER_URL": own.urls(first=second)})

        assert {key: result.get(timeout=30) for key, result in results.items()} == {key: key for key in keys}
    assert worker.stop() == 0
    assert ledger.counts("done") == dict.fromkeys(keys, 1)


def test_a_classic_reply_queue_whose_node_died_is_replaced_and_who_waited_for_it_is_told(
    own: ClusterVhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    first, second, _ = own.cluster.nodes
    gate = tmp_path / "gate"
    worker = worker_process("-c", "1", env={"AMQP_TASKS_BROKER_URL": own.urls(first=second)})
    with WorkerClient(own.urls(first=first), result_queue_type="classic") as client:
        held = client.act("held", "wait", str(gate))
        ledger.wait_for("start", "held")

        first.kill()

        with pytest.raises(ResultLost):
            held.get(timeout=30)
        tell("answered", held.id)  # that it is lost
        after = client.act("after")
        gate.touch()
        # The one slot is free when the result has been refused twice, for as long as an election may take.
        assert after.get(timeout=60) == "after"
    assert worker.stop(within=40) in {0, 1}
