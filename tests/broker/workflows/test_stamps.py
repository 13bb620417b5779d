"""Stamps travel with all parts of a workflow, and revoke them (P071, P091, P174)."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App, chain, chord, group
from amqp_tasks.errors import ConfigurationError, TaskRevokedError
from support import Ledger, RawClient, WorkerProcesses, eventually
from support.workflow_app import QUEUE, fail, gather, stamped

APP = "support.workflow_app:app"
BATCH: dict[str, Any] = {"batch": "b-1", "rows": [1, 2]}


def test_all_parts_of_a_workflow_see_its_stamps(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    assert stamped.apply_async(stamps=BATCH).get(timeout=10) == BATCH
    assert stamped.s().delay().get(timeout=10) == {}
    result = chain(stamped.s(), stamped.s(how="retry"), stamped.si(how="replace")).stamp(**BATCH).delay()
    assert [each.get(timeout=10) for each in (result, result.parent, result.parent.parent)] == [BATCH] * 3
    assert group([stamped.s(), stamped.s()]).apply_async(stamps=BATCH).get(timeout=10) == [BATCH, BATCH]
    assert chord([stamped.s()], gather.s() | stamped.s()).stamp(**BATCH)().get(timeout=10) == BATCH
    with pytest.raises(ValueError, match="no"):
        fail.s().on_error(stamped.s()).stamp(batch="errback").delay().get(timeout=10)
    stamped.s().link(stamped.s()).stamp(batch="callback").delay().get(timeout=10)

    ledger.wait_for("stamped", "{'batch': 'errback'}")
    eventually(lambda: _assert(ledger.keys("stamped").count("{'batch': 'callback'}") == 2), within=10)


def test_a_stamp_revokes_all_that_have_it_now_and_later(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, raw_client: RawClient
) -> None:
    waiting = group(stamped.s() for _ in range(3)).stamp(batch="b-1").delay()
    other, pardoned, asked = (stamped.s().stamp(batch=f"b-{number}").delay() for number in (2, 3, 4))
    caller.control.revoke_by_stamped_headers({"batch": ["b-0", "b-1", "b-3"], "night": True})
    caller.control.unrevoke_by_stamped_headers({"batch": "b-3"})
    asked.revoke_by_stamped_headers({"batch": "b-4"})

    worker_process("-c", "1", app=APP)

    for each in waiting:
        with pytest.raises(TaskRevokedError):
            each.get(timeout=10)
    with pytest.raises(TaskRevokedError):
        stamped.apply_async(stamps={"night": [True]}).get(timeout=10)
    assert other.get(timeout=10) == {"batch": "b-2"}
    assert pardoned.get(timeout=10) == {"batch": "b-3"}
    with pytest.raises(TaskRevokedError):
        asked.get(timeout=10)
    assert raw_client.depth(f"{QUEUE}.dead") == 0


def test_running_tasks_with_a_stamp_are_terminated(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)
    results = [stamped.s(how="wait").stamp(batch="b-1", number=number).delay() for number in range(2)]
    eventually(lambda: _assert(len(ledger.keys("waiting")) == 2), within=10)

    caller.control.revoke_by_stamped_headers({"batch": "b-1"}, terminate=True)

    for result in results:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=20)
    assert stamped.delay().get(timeout=10) == {}


def test_what_no_task_can_be_stamped_with_is_refused(caller: App) -> None:
    for wrong in ({"batch": None}, {"": "b-1"}, {"batch": "x" * 256}):
        with pytest.raises(ConfigurationError):
            caller.control.revoke_by_stamped_headers(wrong)


def _assert(condition: object) -> None:
    assert condition
