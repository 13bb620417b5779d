"""Running named steps in the caller: `Workflow.apply()`, and every call while `task_always_eager` is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._eager import failed_result
from amqp_tasks.app._eager_workflows import run_workflow
from amqp_tasks.app._part_checks import PartChecks
from amqp_tasks.app._workflow_result import WorkflowResult
from amqp_tasks.canvas import Step, Workflow
from amqp_tasks.errors import StepNotRun
from amqp_tasks.message import new_task_id

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._result import AsyncResult

__all__ = ("run_steps",)


def run_steps(
    app: App,
    workflow: Workflow,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    throw: bool,
    serialize: bool,
) -> WorkflowResult:
    """Run all steps here, one after the other; arguments as of `run_workflow`.

    Raises:
        ConfigurationError, InvalidArguments: see `Workflow.apply_async`.
        Exception: what a step raises, with `throw`.
    """
    steps = workflow.ordered()
    checks = PartChecks(app.calls)
    for step in steps:
        checks.check_step(step, args, kwargs)
    done: dict[str, AsyncResult[Any]] = {}
    for step in steps:
        failed = next((each for each in step.after if not done[each].successful()), None)
        if failed is not None:
            done[step.name] = failed_result(
                app, step.call.id or new_task_id(), _not_run(failed, done[failed])
            )
            continue
        given = _given(step, done) if step.after else args
        done[step.name] = run_workflow(
            app, step.call, given, {} if step.after else kwargs, throw=throw, serialize=serialize
        )
    after = {step.name: step.after for step in steps}
    return WorkflowResult(workflow.id or new_task_id(), done, after, joins={}, app=app)


def _given(step: Step, done: Mapping[str, AsyncResult[Any]]) -> list[Any]:
    return [done[each].get(disable_sync_subtasks=False) for each in step.after]


def _not_run(name: str, result: AsyncResult[Any]) -> StepNotRun:
    error = result.result
    return error if isinstance(error, StepNotRun) else StepNotRun.because_of(name, error)
