"""`WorkflowResult`: what is known of named steps that were sent together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._eager import EagerResult
from amqp_tasks.app._group_result import on_all_ready
from amqp_tasks.app._result import AsyncResult, refuse_inside_task
from amqp_tasks.app._result_graph import ResultGraph
from amqp_tasks.app._resuming import resume
from amqp_tasks.clock import seconds_left
from amqp_tasks.errors import AmqpTasksError, ConfigurationError, StepNotRun, WorkflowFailed

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._dead_letters import Requeued

__all__ = ("NOT_RUN", "WorkflowResult")

NOT_RUN = "NOT_RUN"
"""State of a step that is not run, as one that it needs has failed."""
_ENDED_BADLY = frozenset({"FAILURE", "REVOKED", NOT_RUN})
_ENDED = _ENDED_BADLY | {"SUCCESS"}


class WorkflowResult:
    """The results of a workflow's steps: `result["name"]` is that of one, iterating gives the names.

    Thread safety: any thread.

    Args:
        id: of the workflow.
        results: of its steps, each after those that it needs.
        after: of each step, the names of those that it needs.
        joins: the queue of each step that waits in a join.
        app: whose workflow it is.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name
        results: Mapping[str, AsyncResult[Any]],
        after: Mapping[str, Sequence[str]],
        *,
        joins: Mapping[str, str],
        app: App,
    ) -> None:
        self.id, self.app = id, app
        self._joins = dict(joins)
        # Replaced as a whole by `resume`.
        self._results, self._after = dict(results), {name: tuple(needed) for name, needed in after.items()}

    @property
    def steps(self) -> dict[str, AsyncResult[Any]]:
        """The result of each step by its name."""
        return dict(self._results)

    def get(
        self, timeout: float | None = None, propagate: bool = True, *, disable_sync_subtasks: bool = True
    ) -> dict[str, Any]:
        """Wait for all steps; the value of each by its name.

        Args:
            timeout: seconds for all together; None waits for as long as it takes.
            propagate: False puts exception objects in the places of values instead of raising.
            disable_sync_subtasks: see `AsyncResult.get`.

        Raises:
            WorkflowFailed: a step has failed; all that could run has.
            ResultTimeout, ResultUnavailable, ResultLost, ConfigurationError: as `AsyncResult.get`.
        """
        if disable_sync_subtasks:
            refuse_inside_task()
        deadline = None if timeout is None else time.monotonic() + timeout
        found: dict[str, Any] = {}
        for name, result in self._results.items():
            left = seconds_left(deadline)
            found[name] = result.get(left, propagate=False, disable_sync_subtasks=disable_sync_subtasks)
        if propagate and not self.successful():
            raise self._error(found)
        return found

    def _error(self, found: Mapping[str, Any]) -> WorkflowFailed:
        states = self.states
        return WorkflowFailed(
            self.id,
            failed={name: found[name] for name, state in states.items() if state in {"FAILURE", "REVOKED"}},
            not_run=[name for name, state in states.items() if state == NOT_RUN],
            succeeded=[name for name, state in states.items() if state == "SUCCESS"],
        )

    @property
    def states(self) -> dict[str, str]:
        """The state of each step: as `AsyncResult.state`, or NOT_RUN when a step that it needs has failed. Never blocks.

        Raises:
            ResultUnavailable, ResultLost, ClosedError, PublishError: as `AsyncResult.state`.
        """
        return {name: _state(result) for name, result in self._results.items()}

    @property
    def state(self) -> str:
        """PENDING while a step has not ended; then SUCCESS or FAILURE. Raises as `states`."""
        states = set(self.states.values())
        if not states <= _ENDED:
            return "PENDING"
        return "FAILURE" if states & _ENDED_BADLY else "SUCCESS"

    status = state
    """The same as `state`."""

    def ready(self) -> bool:
        """True when all steps have ended, or will not be run; raises as `states`."""
        return self.state != "PENDING"

    def successful(self) -> bool:
        """True when all steps have ended well; raises as `states`."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """True when a step has failed, even while others go on; raises as `states`."""
        return any(state in _ENDED_BADLY for state in self.states.values())

    def on_ready(self, callback: Callable[[WorkflowResult], object]) -> None:
        """Call `callback(self)` when all steps have ended, however they did; the rules of `AsyncResult.then` apply."""
        on_all_ready(self._results.values(), lambda: callback(self))

    def graph(self) -> ResultGraph:
        """The steps with their states: as data, and with `text()`, `dot()` and `mermaid()`."""
        return ResultGraph(
            states={name: _state_or_unknown(result) for name, result in self._results.items()},
            names={},
            edges=tuple((needed, name) for name in self._results for needed in self._after[name]),
        )

    def resume(self) -> Requeued:
        """Have the failed steps run once more, and what needs them; those that have ended well are not.

        Waits for nothing: `get` then waits anew for these. A step that lies in no dead letter any more, as it was resumed by others or was
        revoked, stays as it is known here, and so does what can never run, as something that it needs has failed for good. So do those that could not
        be put back into their queues (`Requeued.failures`, or an error), and what needs them: call it once more.

        Raises:
            ConfigurationError: a step has not ended, or it was run here (eagerly).
            UnknownQueue, TopologyMismatch, BrokerConnectionError, BrokerOperationError: as `app.dead_letters.requeue`.
        """
        if any(isinstance(result, EagerResult) for result in self._results.values()):
            raise ConfigurationError("a workflow that was run here is not kept anywhere: run it anew")
        states = self.states
        open_steps = [name for name, state in states.items() if state not in _ENDED]
        if open_steps:
            raise ConfigurationError(
                f"workflow {self.id} has not ended ({', '.join(open_steps):.200}): resume it when ready() says so"
            )
        kept = {each.step for each in self.app.workflows.failed_steps(self.id)}
        again = self._coming(kept, states)
        before, resumed = self._results, set[str]()
        # Before anything is sent: its outcome may come at once.
        anew = {name: self._anew(result) if name in again else result for name, result in before.items()}
        self._results = anew
        try:
            return resume(self.app, self.id, on_resumed=lambda mark: resumed.add(mark.step))
        finally:
            missed = again - self._reached(again, (again - kept) | resumed)
            self._results = {**anew, **{name: before[name] for name in missed}}

    def _reached(self, again: set[str], possible: set[str]) -> set[str]:
        """Those of `again` that are possible, and all that they need of it."""
        reached: set[str] = set()
        for name, needed in self._after.items():
            if name in again and name in possible and again.intersection(needed) <= reached:
                reached.add(name)
        return reached

    def _coming(self, kept: set[str], states: Mapping[str, str]) -> set[str]:
        """The steps of which there will be news when those in the dead letters run again."""
        coming: set[str] = set()
        for name, needed in self._after.items():
            if name in kept:
                coming.add(name)
            elif kept and states[name] == NOT_RUN:
                queue = self._joins.get(name)
                if queue is None:  # it travels with the one that it needs
                    is_coming = coming.issuperset(needed)
                else:
                    is_coming = self.app.transport.queue_status(queue) is not None
                if is_coming:
                    coming.add(name)
        return coming

    def _anew(self, result: AsyncResult[Any]) -> AsyncResult[Any]:
        """One that waits for the next outcome under the same id."""
        backend = self.app.backend
        backend.forget(result.id)
        expected = backend.expect(result.id, reply_to=backend.reply_to(timeout=self.app.calls.timeout({})))
        return AsyncResult(result.id, app=self.app, task=result.task, expected=expected)

    def revoke(
        self, terminate: bool = False, signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """Have all steps not run that have not started; arguments and errors as `AsyncResult.revoke`."""
        ids = [result.id for result in self._results.values()]
        self.app.control.revoke(ids, terminate, signal, timeout=timeout)

    def forget(self) -> None:
        """Let go of the results of all steps."""
        for result in self._results.values():
            result.forget()

    def __getitem__(self, name: str) -> AsyncResult[Any]:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, WorkflowResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<WorkflowResult: {self.id} [{', '.join(self._results)}]>"


def _state(result: AsyncResult[Any]) -> str:
    state = result.state
    return NOT_RUN if state == "FAILURE" and isinstance(result.result, StepNotRun) else state


def _state_or_unknown(result: AsyncResult[Any]) -> str:
    try:
        return _state(result)
    except AmqpTasksError:
        return "UNKNOWN"
