"""Random workflows on RabbitMQ give what the model gives, and leave nothing behind (U049)."""

from __future__ import annotations

import uuid
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from amqp_tasks import App, AsyncResult
from support import Ledger, Vhost, WorkerProcesses, eventually
from support.canvas_model import Node, failures_of, signature_of, value_of, workflows
from support.workflow_app import again, die, fail, seen_as, step, tally, told_as

APP = "support.workflow_app:app"
READY_STATES = {"SUCCESS", "FAILURE", "REVOKED"}
RANDOM = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _leaf(node: Node) -> Any:
    match node.kind:
        case "fail":
            return fail.s()
        case "again":
            return again.s(node.number)
        case "tally":
            return tally.s()
        case _:
            return step.s(node.number)


class _Run:
    """One random workflow after the other, with a step behind it so that there is one result."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_failing: dict[str, bool] = {}

    def check(self, node: Node, part: Any) -> None:
        key = f"workflow {len(self._is_failing)}"
        whole = (part | step.s(0)).on_error(told_as.s(key)).link(seen_as.s(key))
        result = whole.apply_async((0,))
        expected = Node("chain", parts=(node, Node("step")))
        is_failing = self._is_failing[key] = failures_of(expected)
        if is_failing:
            assert isinstance(result.get(timeout=30, propagate=False), Exception)
        else:
            assert result.get(timeout=30) == value_of(expected, 0)
        eventually(lambda: self._check_called(key), within=10)
        eventually(lambda: _all_ended(result), within=20)

    def check_all(self) -> None:
        """At least is not enough: errback or callback is called for each whole, and once. A second one may have come later."""
        for key in self._is_failing:
            self._check_called(key)

    def _check_called(self, key: str) -> None:
        # By their ids: a process may be killed between the run of one and its ack, and then it runs again as the same task.
        told, seen = (
            {line for line in self._ledger.keys(event) if line.startswith(f"{key} ")}
            for event in ("told", "seen")
        )
        is_failing = self._is_failing[key]
        assert (len(told), len(seen)) == (int(is_failing), int(not is_failing))


def _all_ended(result: AsyncResult[Any]) -> None:
    graph = result.graph()
    # Without a name: the callback, which a worker has sent. Its run is in the ledger.
    states = {each: state for each, state in graph.states.items() if each in graph.names}
    assert states
    assert set(states.values()) <= READY_STATES, str(graph)


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []


def test_random_workflows_give_what_the_model_gives(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)
    run = _Run(ledger)

    @RANDOM
    @given(workflows())
    def each(node: Node) -> None:
        run.check(node, signature_of(node, _leaf))

    each()
    eventually(lambda: _no_joins(vhost), within=10)
    run.check_all()


@pytest.mark.parametrize(
    ("kinds", "examples"),
    [
        pytest.param(("step", "step", "revoked"), 10, id="revoked"),
        pytest.param(("step", "step", "die"), 6, id="killed"),
        pytest.param(("step", "step", "again", "fail", "revoked", "die"), 10, id="of-all-kinds"),
    ],
)
def test_workflows_with_members_that_are_revoked_or_whose_processes_die_give_the_same(
    caller: App,
    worker_process: WorkerProcesses,
    ledger: Ledger,
    vhost: Vhost,
    tmp_path: Path,
    kinds: tuple[str, ...],
    examples: int,
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(200)]
    # Before the worker starts: it knows of them when it begins to consume.
    caller.control.revoke(ids)
    worker_process("-c", "2", app=APP)
    run, revoked, deaths = _Run(ledger), iter(ids), count()

    def leaf(node: Node) -> Any:
        match node.kind:
            case "revoked":
                return step.s(node.number).set(task_id=next(revoked))
            case "die":
                return die.s(node.number, str(tmp_path / f"death-{next(deaths)}"))
            case _:
                return _leaf(node)

    @settings(RANDOM, max_examples=examples)
    @given(workflows(kinds).filter(lambda node: kinds[-1] in repr(node)))
    def each(node: Node) -> None:
        run.check(node, signature_of(node, leaf))

    each()
    eventually(lambda: _no_joins(vhost), within=10)
    run.check_all()
    assert list(tmp_path.glob("death-*")) or next(revoked) != ids[0]
