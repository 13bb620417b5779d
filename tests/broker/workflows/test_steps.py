"""Workflows of named steps through RabbitMQ and worker processes (B055, B061)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from amqp_tasks import App, Workflow, WorkflowResult
from amqp_tasks.app import _leftovers
from amqp_tasks.errors import (
    ConfigurationError,
    NotRegistered,
    StepNotRun,
    TaskDied,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkflowFailed,
)
from amqp_tasks.worker._joiner import Joiner
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.inside import running
from support.steps_app import held, node, swapped
from support.workflow_app import QUEUE, told

APP = "support.steps_app:app"


def _assert(condition: object) -> None:
    assert condition


def diamond(**left: Any) -> Workflow:
    """A step, two beside each other, one that needs both, and one after it."""
    workflow = (
        Workflow()
        .step("top", node.s(number=1, key="top"))
        .step("left", node.s(key="left", **left), after="top")
    )
    workflow.step("right", node.s(number=10, key="right"), after="top")
    workflow.step("bottom", node.s(key="bottom"), after=["left", "right"])
    return workflow.step("last", node.s(number=100, key="last"), after="bottom")


def joins_of(vhost: Vhost) -> list[str]:
    return [queue["name"] for queue in vhost.queues() if "join" in queue["name"]]


def kept(app: App, workflow_id: str, names: list[str]) -> None:
    assert sorted(each.step for each in app.workflows.failed_steps(workflow_id)) == names


def failed(result: WorkflowResult) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as caught:
        result.get(timeout=20)
    return caught.value


def test_steps_run_when_those_that_they_need_have_ended_well(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    result = diamond().delay(5)

    assert result.get(timeout=20) == {"top": 6, "left": 6, "right": 16, "bottom": 22, "last": 122}
    assert result["bottom"].get(timeout=1) == 22
    eventually(lambda: _assert(joins_of(vhost) == []), within=10)
    assert sorted(ledger.keys("node")) == sorted(["top", "left", "right", "bottom", "last"])


def test_what_needs_a_failed_step_is_not_run_and_the_result_says_so(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    result = diamond(kind="fail").on_error(told.s("errback")).delay(5)

    error = failed(result)
    assert (list(error.failed), error.not_run) == (["left"], ("bottom", "last"))
    assert sorted(error.succeeded) == ["right", "top"]
    assert "step 'left' has failed: ValueError: no" in str(result["last"].result)
    eventually(lambda: _assert(ledger.keys("told") == ["errback"]), within=10)
    assert "bottom" not in ledger.keys("node")


def test_a_failed_workflow_is_resumed_from_its_failed_step(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "2", app=APP)
    marker = tmp_path / "mended"
    result = diamond(kind="mend", marker=str(marker)).delay(5)
    assert failed(result).not_run == ("bottom", "last")
    eventually(lambda: kept(caller, result.id, ["left"]), within=10)

    marker.touch()
    assert result.resume().count == 1

    assert result.get(timeout=20)["last"] == 122
    assert {name: ledger.keys("node").count(name) for name in result} == {
        "top": 1, "left": 2, "right": 1, "bottom": 1, "last": 1,
    }  # fmt: skip
    eventually(lambda: _assert(joins_of(vhost) == []), within=10)
    assert caller.workflows.failed_steps() == []


def test_a_step_that_lies_there_twice_is_run_once(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, raw_client: RawClient, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "mended"
    result = diamond(kind="mend", marker=str(marker)).delay(5)
    failed(result)
    eventually(lambda: kept(caller, result.id, ["left"]), within=10)
    (message,) = raw_client.drain(f"{QUEUE}.dead")
    for _ in range(3):
        raw_client.publish(
            f"{QUEUE}.dead",
            message.body,
            message.headers,
            content_type=message.properties.content_type,
            content_encoding=message.properties.content_encoding,
            correlation_id=message.properties.correlation_id,
            reply_to=message.properties.reply_to,
        )

    marker.touch()

    assert result.resume().count == 1
    assert result.get(timeout=20)["last"] == 122
    assert ledger.keys("node").count("left") == 2
    assert raw_client.depth(f"{QUEUE}.dead") == 0


def test_a_resumed_step_that_ends_before_another_of_its_join_is_heeded(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, tmp_path: Path
) -> None:
    worker_process("-P", "threads", "-c", "4", app=APP)
    mended, go = tmp_path / "mended", tmp_path / "go"
    workflow = Workflow().step("slow", held.s(go=str(go)))
    workflow.step("weak", node.s(kind="mend", marker=str(mended), number=1))
    workflow.step("both", node.s(), after=["slow", "weak"])
    result = workflow.delay()
    eventually(lambda: kept(caller, result.id, ["weak"]), within=10)
    eventually(lambda: _assert(ledger.keys("held")), within=10)

    mended.touch()
    assert caller.workflows.resume(result.id).count == 1
    eventually(lambda: kept(caller, result.id, []), within=10)
    go.touch()

    assert result["both"].get(timeout=20) == 1


def test_a_step_of_an_unknown_task_is_kept_until_somebody_knows_it(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP)
    workflow = Workflow().step("odd", caller.signature("nobody.knows").set(queue=QUEUE))

    error = failed(workflow.step("next", node.s(), after="odd").delay())

    assert isinstance(error.failed["odd"], NotRegistered)
    assert error.not_run == ("next",)
    eventually(lambda: kept(caller, error.workflow_id, ["odd"]), within=10)


def test_a_revoked_step_ends_what_needs_it_for_good(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-P", "threads", "-c", "2", app=APP)
    go, mended = tmp_path / "go", tmp_path / "mended"
    workflow = Workflow().step("slow", held.s(go=str(go))).step("unwanted", node.s(), after="slow")
    workflow.step("other", node.s(kind="mend", marker=str(mended)))
    workflow.step("both", node.s(), after=["other", "unwanted"])
    result = workflow.delay()

    result["unwanted"].revoke()
    go.touch()
    error = failed(result)

    assert isinstance(error.failed["unwanted"], TaskRevokedError)
    assert error.not_run == ("both",)
    # Nothing can come of the join, whatever becomes of the other step.
    eventually(lambda: _assert(joins_of(vhost) == []), within=10)
    eventually(lambda: kept(caller, result.id, ["other"]), within=10)
    mended.touch()
    assert result.resume().count == 1
    again = failed(result)
    assert (again.not_run, list(again.failed)) == (("both",), ["unwanted"])


@pytest.mark.parametrize("kind", ["reject", "ignore"])
def test_a_step_that_gives_nothing_by_its_own_will_ends_what_needs_it(
    caller: App, worker_process: WorkerProcesses, kind: str
) -> None:
    worker_process("-c", "1", app=APP)

    result = diamond(kind=kind).delay(5)

    error = result["last"].get(timeout=20, propagate=False)
    assert isinstance(error, StepNotRun)
    assert "step 'left' has failed" in str(error)
    if kind == "reject":
        eventually(lambda: kept(caller, result.id, ["left"]), within=10)


@pytest.mark.parametrize(("kind", "error"), [("kill", TaskDied), ("spin", TimeLimitExceeded)])
def test_a_step_that_ends_its_process_is_kept_and_can_be_resumed(
    caller: App, worker_process: WorkerProcesses, tmp_path: Path, kind: str, error: type[Exception]
) -> None:
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_TASK_CRASH_LIMIT": "2"})
    marker = tmp_path / "mended"
    weak = node.s(3, kind=kind, marker=str(marker)).set(time_limit=1.0 if kind == "spin" else None)
    workflow = Workflow().step("weak", weak).step("x", node.s(number=1))
    result = workflow.step("both", node.s(), after=["weak", "x"]).delay()
    assert isinstance(failed(result).failed["weak"], error)
    eventually(lambda: kept(caller, result.id, ["weak"]), within=10)

    marker.touch()
    result.resume()

    assert result.get(timeout=20) == {"weak": 3, "x": 1, "both": 4}


def test_an_id_that_is_in_use_is_refused(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "1", app=APP)
    workflow = Workflow(id="nightly").step("a", node.s(kind="fail")).step("b", node.s())
    workflow.step("c", node.s(), after=["a", "b"])
    ended: SimpleQueue[WorkflowResult] = SimpleQueue()
    workflow.delay().on_ready(ended.put)
    assert ended.get(timeout=20).states["c"] == "NOT_RUN"

    with pytest.raises(ConfigurationError, match="'nightly' is running or has failed"):
        workflow.delay()

    eventually(lambda: kept(caller, "nightly", ["a"]), within=10)
    caller.workflows.discard("nightly")
    assert failed(workflow.delay()).workflow_id == "nightly"


def test_a_step_that_is_replaced_stays_the_step(
    caller: App, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "mended"
    part = node.s(3, kind="mend", marker=str(marker))
    workflow = Workflow().step("a", swapped.s(part=dict(part))).step("x", node.s(number=1))
    result = workflow.step("b", node.s(), after=["a", "x"]).delay()
    assert failed(result).not_run == ("b",)
    eventually(lambda: kept(caller, result.id, ["a"]), within=10)

    marker.touch()
    result.resume()

    assert result.get(timeout=20) == {"a": 3, "x": 1, "b": 4}


def test_what_is_given_up_leaves_nothing(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)
    result = diamond(kind="fail").delay(5)
    failed(result)
    eventually(lambda: kept(caller, result.id, ["left"]), within=10)
    assert joins_of(vhost)

    assert caller.workflows.discard(result.id) == 1

    assert joins_of(vhost) == []
    assert raw_client.depth(f"{QUEUE}.dead") == 0


def test_what_a_purge_of_the_dead_letters_has_left_can_be_given_up(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP)
    workflow = diamond(kind="fail")
    workflow.id = "nightly"
    failed(workflow.delay(5))
    eventually(lambda: kept(caller, "nightly", ["left"]), within=10)
    assert caller.dead_letters.purge() == 1

    assert caller.workflows.discard("nightly") == 2

    assert joins_of(vhost) == []
    assert caller.workflows.discard("nightly") == 0
    assert failed(workflow.delay(5)).workflow_id == "nightly"


def test_a_value_that_cannot_be_passed_on_ends_what_needs_it(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP)
    large = caller.tasks["large"]
    workflow = Workflow().step("big", large.s().set(ignore_result=True)).step("x", node.s())

    result = workflow.step("both", node.s(), after=["big", "x"]).delay()

    assert isinstance(result["both"].get(timeout=20, propagate=False), StepNotRun)
    eventually(lambda: _assert(joins_of(vhost) == []), within=10)


def test_a_discard_that_reads_the_joins_of_a_workflow_that_runs_stalls_none(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what a join has while the last outcome comes, whose worker then counts too few, and hands all back."""
    go, looked, looks = threading.Event(), threading.Event(), list[int]()
    read, look_at = _leftovers._deliveries, Joiner._look_at

    def held_for_a_look(own: App, queue: str, count: int) -> Iterator[Any]:
        for number, delivery in enumerate(read(own, queue, count), 1):
            yield delivery
            if number == count:
                go.set()
                assert looked.wait(15)

    def noted(self: Joiner, *args: Any, **more: Any) -> Any:
        try:
            return look_at(self, *args, **more)
        finally:
            looks.append(1)
            if len(looks) == 2:
                looked.set()

    monkeypatch.setattr(_leftovers, "_deliveries", held_for_a_look)
    monkeypatch.setattr(Joiner, "_look_at", noted)
    with App("discarded", broker_url=vhost.url) as own:

        @own.task(name="give")
        def give(*values: int, is_last: bool = False) -> int:
            assert not is_last or go.wait(15)
            return sum(values)

        workflow = Workflow(id="nightly").step("a", give.s(1)).step("b", give.s(2, is_last=True))
        workflow.step("both", give.s(), after=["a", "b"])
        with running(own, pool="solo"):
            result = workflow.delay()
            eventually(lambda: _assert(looks), within=10)

            assert own.workflows.discard("nightly") == 0

            assert result.get(timeout=15)["both"] == 3
