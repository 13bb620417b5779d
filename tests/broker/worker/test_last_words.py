"""`on_dead` with real workers: told once of each end, wherever that becomes known. Row B041."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import TaskDied, TaskError, TimeLimitExceeded
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.dead_app import QUEUE

APP = "support.dead_app:app"
DEAD = f"{QUEUE}.dead"


@pytest.fixture
def caller(vhost: Vhost) -> Iterator[App]:
    """Calls by name."""
    with App("caller", broker=vhost.url, task_default_queue=QUEUE) as made:
        yield made


def deaths(ledger: Ledger) -> dict[str, list[str]]:
    """What hooks were told, by task id."""
    found: dict[str, list[str]] = {}
    for entry in ledger.entries():
        if entry.event.startswith("dead "):
            found.setdefault(entry.key, []).append(entry.event.removeprefix("dead "))
    return found


def test_every_end_without_success_is_told_once(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)

    def end(*args: Any, name: str = "end", **options: Any) -> Any:
        return caller.send_task(name, args, **options)

    failed, exhausted, rejected, crashed = (end(how) for how in ("fail", "exhaust", "reject", "crash"))
    kept = end("fail", ignore_result=True)
    invalid, late = end("too", "many"), end(600, name="end_late")
    quiet = [end("ignore"), end("ok"), end("fail", expires=0)]
    good = end("last")

    for result, error in ((crashed, TaskDied), (late, TimeLimitExceeded), (rejected, TaskError)):
        with pytest.raises(error):
            result.get(timeout=40)
    assert good.get(timeout=30) == "last"
    expected = {
        failed.id: ["ValueError ['fail']"],
        exhausted.id: ["ValueError ['exhaust']"],
        rejected.id: ["TaskError ['reject']"],
        crashed.id: ["TaskDied ['crash']"],
        kept.id: ["ValueError ['fail']"],
        invalid.id: ["InvalidArguments ['too', 'many']"],
        late.id: ["TimeLimitExceeded [600]"],
    }
    eventually(lambda: _equal(deaths(ledger), expected), within=20)
    assert worker.stop() == 0
    assert {each.id for each in quiet}.isdisjoint(deaths(ledger))
    assert raw_client.depth(QUEUE) == 0
    # Rejected, crashed, invalid, and the failure that nobody gets.
    assert raw_client.depth(DEAD) == 4


def test_a_body_that_cannot_be_read_is_told_without_arguments(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)
    raw_client.publish(
        QUEUE, b"[[", {"id": "unread", "task": "end"},
        content_type="application/json", content_encoding="utf-8", correlation_id="unread",
    )  # fmt: skip

    eventually(lambda: _equal(deaths(ledger), {"unread": ["TaskError []"]}), within=20)
    eventually(lambda: _equal(raw_client.depth(DEAD), 1), within=10)


def test_a_hook_that_ends_the_process_is_charged_to_its_task_and_not_called_for_ever(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "1", app=APP)

    result = caller.send_task("crash_twice_over")

    with pytest.raises(TaskDied, match="4 times"):
        result.get(timeout=40)
    assert deaths(ledger) == {result.id: ["TaskDied []"]}
    assert raw_client.depth(DEAD) == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize(("how", "told"), [("exit", ["TaskDied ['exit']"]), ("cancel", [])])
def test_arguments_that_exit_when_a_task_is_told_of_its_end_end_no_slot(
    caller: App,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: str,
    how: str,
    told: list[str],
) -> None:
    worker = worker_process("-c", "1", "-P", pool, app=APP, env={"AMQP_TASKS_TASK_CRASH_LIMIT": "1"})

    result = caller.send_task("crash_unread", (how,))

    with pytest.raises(TaskDied):
        result.get(timeout=40)
    assert caller.send_task("end", ("after",)).get(timeout=10) == "after"
    assert deaths(ledger).get(result.id, []) == told
    assert raw_client.depth(DEAD) == 1
    assert worker.stop() == 0
    assert worker.output.count(" ended: ") == 1  # the one that it has killed


def test_a_hook_that_does_not_end_cannot_keep_an_overdue_process(
    caller: App, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP)

    result = caller.send_task("hang_twice_over")

    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=40)
    assert deaths(ledger) == {result.id: ["TimeLimitExceeded []"]}
    assert caller.send_task("end", ("after",)).get(timeout=30) == "after"


def _equal(found: object, expected: object) -> None:
    assert found == expected
