"""Chords whose workers die, or whose broker goes away, while their outcomes come together: the body runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqp_tasks import chord
from support import Ledger, PrivateNode, Vhost, WorkerProcesses, eventually
from support.workflow_app import add, app, fuse, gather, hold_join, lose_join, slow_step

APP = "support.workflow_app:app"


def _assert(condition: object) -> None:
    assert condition


@pytest.mark.parametrize(
    ("point", "most"),
    [("before the look", 1), ("after the queue was taken", 1), ("after the body was published", 2)],
)
def test_a_worker_that_dies_at_a_join_leaves_it_to_another(
    vhost: Vhost,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    point: str,
    most: int,
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"

    members = [add.s(1, 1), fuse.s(0, point, str(marker))]
    try:
        assert chord(members, gather.s("it"))().get(timeout=30) == [2, 0]
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)

    assert marker.exists()
    # At least once, as any task; twice only where the body was confirmed before the death.
    assert 1 <= ledger.keys("gather").count("it") <= most


def test_a_look_that_loses_its_connection_is_taken_again(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    try:
        assert chord([add.s(1, 1), lose_join.s(5)], gather.s())().get(timeout=20) == [2, 5]
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)


def test_a_join_that_cannot_be_looked_at_keeps_no_other_waiting(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "2", "-P", "threads", app=APP)
    go = tmp_path / "go"
    try:
        held = chord([hold_join.s(1, str(go))], gather.s())()
        assert chord([add.s(1, 1), add.s(2, 2)], gather.s())().get(timeout=20) == [2, 4]
        assert not held.ready()
        go.touch()
        assert held.get(timeout=20) == [1]
    finally:
        app.resources.close(timeout=5.0)


@pytest.mark.parametrize("outage", ["restart", "kill"])
def test_a_chord_outlives_its_broker(
    private_node: PrivateNode, ledger: Ledger, worker_process: WorkerProcesses, outage: str
) -> None:
    app.conf.update(broker_url=private_node.url)
    worker_process("-c", "2", app=APP)

    results = [chord([slow_step.s(0, n) for n in range(30)], gather.s(f"chord {c}"))() for c in range(4)]
    eventually(lambda: _assert(len(ledger.keys("gather")) >= 1), within=20)
    getattr(private_node, outage)()
    if outage == "kill":
        private_node.start()
    try:
        for result in results:
            assert result.get(timeout=50) == list(range(30))
        eventually(lambda: _no_joins(private_node.vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)
    assert set(ledger.keys("gather")) == {f"chord {c}" for c in range(4)}


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []
