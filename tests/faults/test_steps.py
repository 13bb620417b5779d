"""Workflows of named steps whose workers die, or whose resuming is killed half-way: the rest runs, or is told (B055, B061)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks import Workflow, WorkflowResult
from amqp_tasks.errors import StepNotRun
from support import Ledger, PrivateNode, Vhost, WorkerProcesses, eventually
from support.steps_app import app, fused, node

APP = "support.steps_app:app"
POINTS = [("before the look", 1), ("after the queue was taken", 1), ("after what follows was published", 2)]
KILLED_RESUME = """
import os, signal, sys
from amqp_tasks.app import _look, _resuming
from support.steps_app import app

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before a step is published":
    _resuming.published = die
else:
    _look.Look.remove = die
app.workflows.resume(sys.argv[1])
"""


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    app.resources.close(timeout=5.0)


def _assert(condition: object) -> None:
    assert condition


def _kept(workflow_id: str, names: list[str]) -> None:
    assert sorted(each.step for each in app.workflows.failed_steps(workflow_id)) == names


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []


@pytest.mark.parametrize(("point", "most"), POINTS)
def test_a_worker_that_dies_at_a_join_of_steps_leaves_it_to_another(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, point: str, most: int
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"
    workflow = Workflow().step("a", node.s(number=1)).step("b", fused.s(2, point=point, marker=str(marker)))
    workflow.step("both", node.s(key="both"), after=["a", "b"]).step("last", node.s(number=10), after="both")

    result = workflow.delay()

    assert result.get(timeout=30) == {"a": 1, "b": 2, "both": 3, "last": 13}
    assert marker.exists()
    assert 1 <= ledger.keys("node").count("both") <= most
    eventually(lambda: _no_joins(vhost), within=15)


@pytest.mark.parametrize("point", [point for point, _ in POINTS])
def test_a_worker_that_dies_while_it_tells_of_a_failure_leaves_that_to_another(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, point: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"
    weak = fused.s(2, point=point, marker=str(marker), fails=True)
    workflow = Workflow().step("a", node.s(number=1)).step("weak", weak)
    workflow.step("both", node.s(), after=["a", "weak"]).step("other", node.s())
    workflow.step("far", node.s(), after=["both", "other"])

    result = workflow.delay()

    assert isinstance(result["far"].get(timeout=30, propagate=False), StepNotRun)
    assert marker.exists()
    eventually(lambda: _kept(result.id, ["weak"]), within=15)
    # Its process may have died between the dead letter and the ack: it lies there twice then, and is discarded as one.
    assert app.workflows.discard(result.id) >= 1
    eventually(lambda: _no_joins(vhost), within=15)


@pytest.mark.parametrize("moment", ["before a step is published", "before its letter is removed"])
def test_a_resume_that_is_killed_loses_nothing(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, moment: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "2", app=APP)
    result, marker = _failed_workflow(tmp_path)
    eventually(lambda: _kept(result.id, ["b", "c"]), within=15)

    marker.touch()
    killed = worker_process.run([sys.executable, "-c", KILLED_RESUME, result.id, moment], ready=None)
    assert killed.wait(within=20) == -9
    # What the killed process held is back.
    eventually(lambda: _kept(result.id, ["b", "c"]), within=15)
    app.workflows.resume(result.id)

    eventually(lambda: _assert("last" in ledger.keys("node")), within=20)
    eventually(lambda: _no_joins(vhost), within=15)
    runs = ledger.keys("node")
    assert runs.count("a") == 1
    # Killed between the confirm and the removal, a step is resumed twice; what waits for both begins once all the same.
    assert 2 <= runs.count("b") <= 3
    assert 2 <= runs.count("c") <= 3
    assert runs.count("last") == 1


def test_a_failed_workflow_outlives_its_broker(
    private_node: PrivateNode, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    app.conf.update(broker_url=private_node.url)
    worker_process("-c", "2", app=APP)
    result, marker = _failed_workflow(tmp_path)
    eventually(lambda: _kept(result.id, ["b", "c"]), within=15)

    private_node.kill()
    private_node.start()
    # RabbitMQ 3.10 counts the messages of a quorum queue some moments after it takes connections.
    eventually(lambda: _kept(result.id, ["b", "c"]), within=15)
    marker.touch()

    assert result.resume().count == 2
    assert result.get(timeout=40)["last"] == 103
    # Not that of `b` and `c`: a broker that is killed may have forgotten that it was deleted a moment before.
    kept = f"amqp_tasks.join.{result.id}.1"
    eventually(
        lambda: _assert(kept not in {queue["name"] for queue in private_node.vhost.queues()}), within=15
    )


def _failed_workflow(tmp_path: Path) -> tuple[WorkflowResult, Path]:
    """One in which two steps have failed until the file is there."""
    marker = tmp_path / "mended"
    workflow = Workflow().step("a", node.s(1, key="a"))
    for name in ("b", "c"):
        workflow.step(name, node.s(kind="mend", marker=str(marker), key=name), after="a")
    workflow.step("both", node.s(number=1), after=["b", "c"])
    result = workflow.step("last", node.s(number=100, key="last"), after="both").delay()
    assert set(result.get(timeout=20, propagate=False)) == {"a", "b", "c", "both", "last"}
    return result, marker
