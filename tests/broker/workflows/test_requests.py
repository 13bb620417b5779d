"""What a task is told of what follows it, and its own call rebuilt from its request (P053)."""

from __future__ import annotations

import pytest

from amqp_tasks import App, chain
from support import Ledger, WorkerProcesses
from support.workflow_app import add, followed, rebuilt, seen, step, told

APP = "support.workflow_app:app"
pytestmark = pytest.mark.usefixtures("caller")


def test_a_request_tells_what_follows_it(worker_process: WorkerProcesses, ledger: Ledger) -> None:
    worker_process("-c", "1", app=APP)

    first = followed.s(1).link(seen.s("callback")).on_error(told.s("errback"))
    assert chain(first, step.s(1), add.s(1)).delay().get(timeout=20) == 3
    assert followed.delay(1).get(timeout=20) == 1

    all_of_it = "[['seen'], ['told'], ['add', 'step']] None True"
    assert ledger.keys("followed") == [all_of_it, "[[], [], []] None False"]


@pytest.mark.parametrize("how", ["send", "replace"])
def test_a_signature_from_its_request_is_the_same_call(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, how: str
) -> None:
    worker_process("-c", "1", "-Q", "other", app=APP)
    call = rebuilt.s(0, last=2, how=how).set(queue="other", headers={"x-own": "kept"})

    result = call.link(seen.s("callback").set(queue="other")).stamp(batch="b").delay()

    assert result.get(timeout=20) == 2
    ledger.wait_for("seen", "callback 2")
    assert ledger.keys("rebuilt") == [f"{result.id} {value} {{'batch': 'b'}} kept" for value in range(3)]
    assert ledger.keys("seen") == ["callback 2"]


def test_a_replaced_task_from_its_request_keeps_its_place_in_a_chain(
    worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    flow = chain(rebuilt.s(0, last=1, how="replace"), step.s(10))

    assert flow.delay().get(timeout=20) == 11
    assert len(ledger.keys("rebuilt")) == 2
