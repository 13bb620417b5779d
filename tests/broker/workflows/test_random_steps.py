"""Random workflows of named steps on RabbitMQ come to what the model says, and leave nothing behind (B055, B061)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from amqp_tasks import App, WorkflowResult
from amqp_tasks.errors import StepNotRun
from support import Ledger, Vhost, WorkerProcesses, eventually
from support.steps_app import node
from support.steps_model import Outcome, Planned, outcomes_of, plans, workflow_of

APP = "support.steps_app:app"
RANDOM = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


RACING = (
    Planned("step", 3),
    Planned("mend", 9),
    Planned("step", 9, (0, 1)),
    Planned("fail", 2, (0,)),
    Planned("step", 5, (2, 0)),
    Planned("mend", 6, (1, 4, 2)),
    Planned("step", 4),
)
"""One of them; its last join is looked at by two processes at once while it tells that its step is not run."""


def _signature(step: Planned, marker: str = "") -> Any:
    return node.s(*([] if step.after else [0]), number=step.number, kind=step.kind, marker=marker)


def _outcomes(result: WorkflowResult) -> dict[str, Outcome]:
    found = result.get(timeout=40, propagate=False)
    return {
        name: "NOT_RUN"
        if isinstance(value, StepNotRun)
        else "FAILURE"
        if isinstance(value, Exception)
        else value
        for name, value in found.items()
    }


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []


def _kept(app: App, result: WorkflowResult, expected: Sequence[str]) -> None:
    assert sorted(each.step for each in app.workflows.failed_steps(result.id)) == sorted(expected)


def _failures(outcomes: dict[str, Outcome]) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome == "FAILURE"]


def test_random_steps_give_what_the_model_gives(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    @RANDOM
    @given(plans())
    def each(plan: tuple[Planned, ...]) -> None:
        result = workflow_of(plan, _signature).delay()

        expected = outcomes_of(plan)
        assert _outcomes(result) == expected
        assert workflow_of(plan, _signature).apply().states == {
            name: outcome if isinstance(outcome, str) else "SUCCESS" for name, outcome in expected.items()
        }
        eventually(lambda: _kept(caller, result, _failures(expected)), within=10)
        caller.workflows.discard(result.id)

    each()
    eventually(lambda: _no_joins(vhost), within=10)


def test_random_failed_workflows_that_are_resumed_give_the_rest(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "2", app=APP)
    markers: list[Path] = []

    @settings(RANDOM, max_examples=12)
    @given(
        plans(("step", "step", "mend", "fail")).filter(lambda plan: any(step.kind == "mend" for step in plan))
    )
    def each(plan: tuple[Planned, ...]) -> None:
        marker = tmp_path / f"mended-{len(markers)}"
        markers.append(marker)
        result = workflow_of(plan, lambda step: _signature(step, str(marker))).delay()
        before, after = outcomes_of(plan), outcomes_of(plan, is_resumed=True)
        assert _outcomes(result) == before
        eventually(lambda: _kept(caller, result, _failures(before)), within=10)

        marker.touch()
        assert result.resume().count == len(_failures(before))

        assert _outcomes(result) == after
        eventually(lambda: _kept(caller, result, _failures(after)), within=10)
        caller.workflows.discard(result.id)

    each()
    eventually(lambda: _no_joins(vhost), within=10)


def test_a_step_that_is_resumed_at_once_is_told_no_more_that_it_is_not_run(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    """Of twenty-five such workflows one was, on a machine with work to do."""
    worker_process("-c", "2", app=APP)
    before, after = outcomes_of(RACING), outcomes_of(RACING, is_resumed=True)
    for number in range(25):
        marker = tmp_path / f"mended-{number}"
        result = workflow_of(RACING, partial(_signature, marker=str(marker))).delay()
        assert _outcomes(result) == before
        eventually(partial(_kept, caller, result, _failures(before)), within=10)

        marker.touch()
        assert result.resume().count == len(_failures(before))

        assert _outcomes(result) == after
        eventually(partial(_kept, caller, result, _failures(after)), within=10)
        caller.workflows.discard(result.id)


def test_random_steps_whose_processes_die_give_the_same(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "2", app=APP)
    deaths: list[int] = []

    def signature_of(step: Planned) -> Any:
        deaths.append(1)
        return _signature(step, str(tmp_path / f"death-{len(deaths)}"))

    @settings(RANDOM, max_examples=6)
    @given(
        plans(("step", "step", "die"), most=6).filter(lambda plan: any(step.kind == "die" for step in plan))
    )
    def each(plan: tuple[Planned, ...]) -> None:
        assert _outcomes(workflow_of(plan, signature_of).delay()) == outcomes_of(plan)

    each()
    eventually(lambda: _no_joins(vhost), within=10)
    assert list(tmp_path.glob("death-*"))
