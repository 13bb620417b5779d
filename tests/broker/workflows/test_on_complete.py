"""`group.on_complete`: a callback that runs once all members have ended, however they did (B058)."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from amqp_tasks import App, GroupResult, chain, chord, group
from amqp_tasks.errors import ChordError
from support import Ledger, Vhost, WorkerProcesses, eventually
from support.workflow_app import add, completed, fail, fuse, gather, seen, step, told

APP = "support.workflow_app:app"


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []


def test_it_gets_the_outcome_of_each_member_in_order(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    revoked = str(uuid.uuid4())
    caller.control.revoke([revoked])
    worker_process("-c", "2", app=APP)

    members = [
        add.s(1, 1),
        fail.s(),
        chain(add.s(1, 1), fail.s(), step.s(1)),
        add.s(1, 1).set(task_id=revoked),
        caller.signature("unknown"),
        chord([add.s(1, 1), fail.s()], gather.s("never")),
        chain(add.s(1, 1), group(step.s(1), step.s(2))),
    ]
    result = group(members).on_complete(completed.s("it").on_error(told.s("errback"))).delay()

    assert result.get(timeout=20) == [
        ["SUCCESS", 2],
        ["FAILURE", "ValueError"],
        ["FAILURE", "ValueError"],
        ["REVOKED", "TaskRevokedError"],
        ["FAILURE", "NotRegistered"],
        ["FAILURE", "ChordError"],
        ["SUCCESS", [3, 4]],
    ]
    header = result.parent
    assert isinstance(header, GroupResult)
    assert [header[0].state, header[1].state] == ["SUCCESS", "FAILURE"]
    eventually(lambda: _no_joins(vhost), within=10)
    assert (ledger.keys("completed"), ledger.keys("gather"), ledger.keys("told")) == (["it"], [], [])


def test_it_tells_whose_outcome_and_error_each_is(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "1", app=APP)

    result = group(add.s(1, 1), fail.s()).on_complete(gather.s()).delay()

    good, bad = result.get(timeout=20)
    assert [good["task_id"], bad["task_id"]] == [member.id for member in result.parent]
    assert (good["value"], good["error"]) == (2, None)
    error = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
    assert (bad["value"], bad["error"]) == (None, error)


def test_success_and_failure_of_a_batch_are_callback_and_errback_of_it(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    for name, members in (("good", [add.s(1, 1)]), ("bad", [add.s(1, 1), fail.s()])):
        check = caller.signature("all_well").link(seen.s(name)).on_error(told.s(name))
        group(members).on_complete(check).delay()

    ledger.wait_for("seen", "good [2]")
    ledger.wait_for("told", "bad")
    assert (ledger.keys("told"), ledger.keys("seen")) == (["bad"], ["good [2]"])


def test_it_nests_and_what_follows_goes_on(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)
    inner = group(add.s(1, 1), fail.s()).on_complete(completed.s())

    batches = group(inner, group(fail.s()).on_complete(completed.s()), fail.s()).on_complete(completed.s())
    assert batches.delay().get(timeout=20) == [
        ["SUCCESS", [["SUCCESS", 2], ["FAILURE", "ValueError"]]],
        ["SUCCESS", [["FAILURE", "ValueError"]]],
        ["FAILURE", "ValueError"],
    ]
    flow = add.s(1, 1) | group(step.s(1), fail.s()).on_complete(completed.s()) | gather.s()
    assert flow.delay().get(timeout=20) == [["SUCCESS", 3], ["FAILURE", "ValueError"]]
    assert group([]).on_complete(completed.s()).delay().get(timeout=20) == []
    with pytest.raises(ChordError):
        chord([inner, fail.s()], gather.s())().get(timeout=20)


@pytest.mark.parametrize(
    ("point", "most"),
    [("before the look", 1), ("after the queue was taken", 1), ("after the body was published", 2)],
)
def test_it_runs_when_the_worker_is_killed_at_the_join(
    caller: App,
    worker_process: WorkerProcesses,
    ledger: Ledger,
    vhost: Vhost,
    tmp_path: Path,
    point: str,
    most: int,
) -> None:
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"

    members = group(fail.s(), fuse.s(5, point, str(marker)))
    result = members.on_complete(completed.s("it")).delay()

    assert result.get(timeout=30) == [["FAILURE", "ValueError"], ["SUCCESS", 5]]
    eventually(lambda: _no_joins(vhost), within=15)
    assert marker.exists()
    assert 1 <= ledger.keys("completed").count("it") <= most
