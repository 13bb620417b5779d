"""Random workflows on RabbitMQ give what the model gives, and leave nothing behind (U049)."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from amqp_tasks import App
from support import Ledger, Vhost, WorkerProcesses, eventually
from support.canvas_model import Node, failures_of, signature_of, value_of, workflows
from support.workflow_app import again, die, fail, seen, step, tally, told

APP = "support.workflow_app:app"
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
        self._ledger, self._count = ledger, 0

    def check(self, node: Node, part: Any) -> None:
        self._count += 1
        key = f"workflow {self._count}"
        whole = (part | step.s(0)).on_error(told.s(key)).link(seen.s(key))
        result = whole.apply_async((0,))
        expected = Node("chain", parts=(node, Node("step")))
        if failures_of(expected):
            assert isinstance(result.get(timeout=30, propagate=False), Exception)
            eventually(lambda: self._told(key) >= 1, within=10)
        else:
            assert result.get(timeout=30) == value_of(expected, 0)
            eventually(lambda: self._seen(key) >= 1, within=10)
        # At least is not enough: errback or callback is called for the whole, and once.
        is_failing = failures_of(expected)
        assert (self._told(key), self._seen(key)) == (int(is_failing), int(not is_failing))

    def _told(self, key: str) -> int:
        return self._ledger.keys("told").count(key)

    def _seen(self, key: str) -> int:
        return sum(line.startswith(f"{key} ") for line in self._ledger.keys("seen"))


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


def test_workflows_with_members_that_are_revoked_give_the_same(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(100)]
    # Before the worker starts: it knows of them when it begins to consume.
    caller.control.revoke(ids)
    worker_process("-c", "2", app=APP)
    run, revoked = _Run(ledger), iter(ids)

    def leaf(node: Node) -> Any:
        return step.s(node.number).set(task_id=next(revoked)) if node.kind == "revoked" else _leaf(node)

    @settings(RANDOM, max_examples=10)
    @given(workflows(("step", "step", "revoked")).filter(lambda node: "revoked" in repr(node)))
    def each(node: Node) -> None:
        run.check(node, signature_of(node, leaf))

    each()
    eventually(lambda: _no_joins(vhost), within=10)
    assert next(revoked) != ids[0]


def test_workflows_with_members_whose_processes_die_give_the_same(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "2", app=APP)
    run = _Run(ledger)
    deaths: list[int] = []

    def leaf(node: Node) -> Any:
        if node.kind != "die":
            return _leaf(node)
        deaths.append(1)
        return die.s(node.number, str(tmp_path / f"death-{len(deaths)}"))

    @settings(RANDOM, max_examples=6)
    @given(workflows(("step", "step", "die")).filter(lambda node: "die" in repr(node)))
    def each(node: Node) -> None:
        run.check(node, signature_of(node, leaf))

    each()
    eventually(lambda: _no_joins(vhost), within=10)
    assert list(tmp_path.glob("death-*"))
