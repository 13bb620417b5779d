"""Joins of named steps that nobody would end are looked at by the clock (B055, U049)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks import App, Workflow, WorkflowResult
from amqp_tasks.errors import StepLost, StepNotRun, WorkflowFailed
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.steps_app import dying_in_give_up, held, node, spent
from support.workflow_app import QUEUE

APP = "support.steps_app:app"
TIMEOUT = 4.0
ENV = {"AMQP_TASKS_TASK_CHORD_TIMEOUT": str(TIMEOUT)}
POINTS = ["before it is told", "before the watch is set aside"]


@pytest.fixture(autouse=True)
def _impatient(caller: App) -> Iterator[None]:
    before = caller.settings.task.chord_timeout
    caller.conf.update(task_chord_timeout=TIMEOUT)
    yield
    caller.conf.update(task_chord_timeout=before)


def _assert(condition: object) -> None:
    assert condition


def _joins(vhost: Vhost) -> list[str]:
    return [queue["name"] for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.join")]


def _kept(app: App, result: WorkflowResult, names: list[str]) -> None:
    assert sorted(each.step for each in app.workflows.failed_steps(result.id)) == names


def _losing() -> Workflow:
    """Steps that need one whose message is in a queue that nobody serves."""
    workflow = Workflow().step("a", node.s(number=1, key="a")).step("b", node.s(number=2).set(queue="other"))
    workflow.step("c", node.s(number=4, key="c"), after="b")
    workflow.step("both", node.s(key="both"), after=["a", "c"]).step("d", node.s(number=8))
    return workflow.step("last", node.s(number=16, key="last"), after=["both", "d"])


def _failed(result: WorkflowResult) -> WorkflowFailed:
    with pytest.raises(WorkflowFailed) as caught:
        result.get(timeout=40)
    return caught.value


def test_a_join_of_steps_whose_last_look_died_goes_on(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    marker = tmp_path / "died"
    workflow = Workflow().step("a", node.s(number=1)).step("b", spent.s(5, marker=str(marker)))

    result = workflow.step("both", node.s(), after=["a", "b"]).delay()

    assert result["both"].get(timeout=20) == 6
    assert marker.exists()
    eventually(lambda: _assert(not _joins(vhost)), within=10)


def test_steps_that_need_a_lost_one_are_told_why_and_the_workflow_is_kept(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)

    result = _losing().delay()
    raw_client.purge("other")
    error = _failed(result)

    assert error.not_run == ("both", "last")
    assert sorted(error.succeeded) == ["a", "d"]
    assert {name: type(each) for name, each in error.failed.items()} == {"b": StepLost, "c": StepLost}
    assert "1 of 2 outcomes" in str(error.failed["c"])
    assert "step 'c' has failed: StepLost" in str(result["last"].result)
    eventually(lambda: _kept(caller, result, ["both"]), within=10)
    (letter,) = caller.dead_letters.find()
    assert letter.reason == "step-lost"
    caller.workflows.discard(result.id)
    assert not _joins(vhost)
    assert not caller.dead_letters.find()


def test_a_workflow_goes_on_from_a_step_that_the_broker_had_set_aside(
    caller: App,
    worker_process: WorkerProcesses,
    ledger: Ledger,
    raw_client: RawClient,
    vhost: Vhost,
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    result = _losing().delay()
    taken, _, _ = raw_client.channel.basic_get("other")
    assert taken is not None
    assert taken.delivery_tag is not None
    raw_client.channel.basic_reject(taken.delivery_tag, requeue=False)
    _failed(result)
    eventually(lambda: _kept(caller, result, ["both"]), within=10)
    queues = ["work", "other"]
    found = caller.workflows.failed_steps(result.id, queues=queues)
    assert sorted(each.step for each in found) == ["b", "both"]

    caller.workflows.resume(result.id, queues=queues)
    worker_process("-c", "1", "-Q", "other", app=APP, env=ENV)

    eventually(lambda: _assert(ledger.keys("node").count("last") == 1), within=20)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    assert {name: ledger.keys("node").count(name) for name in ("a", "c", "both")} == {
        "a": 1,
        "c": 1,
        "both": 1,
    }
    # The watch that was resumed finds that its join is gone.
    eventually(lambda: _assert(raw_client.depth("work.dead") == 0), within=10)


def test_a_lost_step_that_comes_after_all_is_heeded_without_being_resumed(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    result = _losing().delay()
    _failed(result)

    worker_process("-c", "1", "-Q", "other", app=APP, env=ENV)

    eventually(lambda: _assert("last" in ledger.keys("node")), within=20)
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    _kept(caller, result, [])


def _lost_and_found(caller: App, worker_process: WorkerProcesses, raw_client: RawClient) -> WorkflowResult:
    """A workflow of which a step was told to be lost, lies in the dead letters, and has come after all."""
    worker_process("-c", "1", app=APP, env=ENV)
    result: WorkflowResult = _losing().delay()
    _failed(result)
    eventually(lambda: _kept(caller, result, ["both"]), within=10)
    worker_process("-c", "1", "-Q", "other", app=APP, env=ENV)
    eventually(lambda: _kept(caller, result, []), within=20)
    assert raw_client.depth("work.dead") == 1
    return result


def test_a_lost_step_that_has_come_is_removed_by_a_resume_which_runs_nothing(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    result = _lost_and_found(caller, worker_process, raw_client)

    assert caller.workflows.resume(result.id).count == 0

    eventually(lambda: _assert(raw_client.depth("work.dead") == 0), within=10)


def test_who_resumes_by_a_result_what_has_come_by_itself_keeps_what_was_told(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    result = _lost_and_found(caller, worker_process, raw_client)

    assert result.resume().count == 0

    assert _failed(result).not_run == ("both", "last")


def test_a_resumed_workflow_of_which_nothing_comes_again_is_told_and_kept_again(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    result = _losing().delay()
    raw_client.purge("other")
    _failed(result)
    eventually(lambda: _kept(caller, result, ["both"]), within=10)

    result.resume()

    assert isinstance(result["both"].get(timeout=20, propagate=False), StepNotRun)
    eventually(lambda: _kept(caller, result, ["both"]), within=10)


def test_a_join_of_steps_that_was_emptied_ends_what_needs_it_for_good(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-P", "threads", "-c", "2", app=APP, env=ENV)
    go = tmp_path / "go"
    workflow = Workflow().step("a", node.s(number=1)).step("b", held.s(5, go=str(go)))
    result = workflow.step("both", node.s(), after=["a", "b"]).delay()
    (join,) = _joins(vhost)
    eventually(lambda: _assert(raw_client.depth(join) == 2), within=10)

    raw_client.purge(join)

    assert "emptied" in str(result["both"].get(timeout=30, propagate=False))
    eventually(lambda: _assert(not _joins(vhost)), within=10)
    go.touch()
    assert _failed(result).not_run == ("both",)
    _kept(caller, result, [])


def test_a_step_that_waits_itself_is_not_taken_for_lost(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    # Something comes to the first join more often than each `TIMEOUT`; to the second nothing for twice as long.
    workflow = Workflow()
    for number in range(6):
        workflow.step(f"a{number}", node.s(number=1).set(countdown=number * 0.5 * TIMEOUT))
    workflow.step("all", node.s(), after=[f"a{number}" for number in range(6)])
    workflow.step("early", node.s(number=1)).step("last", node.s(), after=["all", "early"])
    began = time.monotonic()

    assert workflow.delay().get(timeout=40)["last"] == 7

    assert time.monotonic() - began > 2 * TIMEOUT


def test_a_failed_workflow_waits_to_be_resumed_however_long_it_takes(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    marker = tmp_path / "mended"
    workflow = Workflow().step("a", node.s(number=1)).step("b", node.s(kind="mend", marker=str(marker)))
    result = workflow.step("both", node.s(number=1), after=["a", "b"]).delay()
    assert _failed(result).not_run == ("both",)
    # Of another, which was lost later, it is known when its time was over.
    lost = _losing().delay()
    raw_client.purge("other")
    _failed(lost)

    marker.touch()
    result.resume()

    assert result.get(timeout=20)["both"] == 2


def test_the_watch_of_an_earlier_run_leaves_a_later_one_alone(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)

    def workflow(queue: str) -> Workflow:
        made = Workflow(id="nightly").step("a", node.s(number=1).set(countdown=0.6 * TIMEOUT, queue=queue))
        made.step("b", node.s(number=1).set(countdown=0.7 * TIMEOUT, queue=queue))
        return made.step("both", node.s(), after=["a", "b"])

    workflow("other").delay()
    # Half of the time of the first run is over when the second begins: its first outcome is in time, and too late for the first.
    assert node.apply_async((), countdown=0.5 * TIMEOUT).get(timeout=20) == 0
    caller.transport.delete_queue("amqp_tasks.join.nightly.0")
    second = workflow(QUEUE).delay()

    assert second.get(timeout=40) == {"a": 1, "b": 1, "both": 2}
    eventually(lambda: _assert(not _joins(vhost)), within=10)


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_while_it_gives_steps_up_leaves_that_to_another(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient, tmp_path: Path, point: str
) -> None:
    worker_process("-c", "1", app=APP, env=ENV)
    marker = tmp_path / "died"
    result = _losing().delay()
    dying_in_give_up.delay(point=point, marker=str(marker))
    raw_client.purge("other")

    assert _failed(result).not_run == ("both", "last")

    eventually(lambda: _kept(caller, result, ["both"]), within=30)
    assert marker.exists()
