"""How far a task has got, and states of its own (P049)."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amqp_tasks import App, group
from amqp_tasks.app._progress import Progress
from amqp_tasks.errors import ConfigurationError, ResultTimeout
from support import RawClient, Vhost, WorkerProcess, WorkerProcesses, eventually
from support.workflow_app import ending, progressing, reporting

APP = "support.workflow_app:app"


def test_progress_reaches_who_waits_and_ends_with_the_task(
    caller: App, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    go = tmp_path / "go"
    result = progressing.delay(1000, str(go))
    states: list[str] = []
    result.listen(lambda record: states.append(str(record.status)))
    with pytest.raises(ResultTimeout):
        list(result.updates(timeout=0.1))
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(lambda: list(result.updates(timeout=20)))
        # Who listens later is told the last, and not the first.
        eventually(lambda: len(result._expectation().listeners) == 2)  # type: ignore[attr-defined]
        go.touch()
        told = telling.result(30)

    assert result.get(timeout=10) == 1000
    # Not a thousand messages: the first, one in a tenth of a second, and the last.
    assert told[0] == Progress(1, 1000, "step 1")
    assert told[-1] == Progress(1000, 1000, "step 1000")
    assert len(told) < 500
    assert told[-1].fraction == 1.0
    assert "LOADING" in states


def test_a_task_that_is_no_running_one_has_no_progress() -> None:
    with pytest.raises(ConfigurationError, match="called as a function"):
        progressing.progress(1)
    with pytest.raises(ConfigurationError, match="a state of your own"):
        progressing.update_state("SUCCESS")
    assert Progress(3).fraction is None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("well", ["task-progress", "task-succeeded"]),
        ("nonsense", ["task-progress", "task-succeeded"]),
        ("fail", ["task-progress", "task-dead", "task-failed"]),
        ("retry", ["task-progress", "task-retried", "task-progress", "task-succeeded"]),
        ("ignore", ["task-progress", "task-ignored"]),
        ("hang", ["task-progress", "task-dead", "task-failed"]),
    ],
)
def test_anybody_can_follow_a_task_to_its_end(
    caller: App, worker_process: WorkerProcesses, how: str, told: list[str]
) -> None:
    worker_process("-c", "1", app=APP)
    with caller.events.follow("followed.1") as follower:
        reporting.apply_async(
            (how,), task_id="followed.1", ignore_result=True, time_limit=1 if how == "hang" else None
        )

        events = list(follower.events(timeout=20))

    assert [event.type for event in events] == told
    assert {event.task_id for event in events} == {"followed.1"}
    assert (events[0].fields["done"], events[0].fields["total"], events[0].fields["note"]) == (1, 2, "half")
    wanted = {"well": "'well'", "fail": "ValueError(no)", "hang": "TimeLimitExceeded"}.get(how, "")
    assert wanted in f"{events[-1].fields.get('result')} {events[-1].fields.get('exception')}"


@pytest.mark.parametrize(
    ("how", "reason", "said"),
    [
        ("silent-fail", "failed", "ValueError(no)"),
        ("exit", "crash-limit", "crash-limit: worker died: exit code 3, 3 times"),
        ("reject", "rejected", "rejected: not mine"),
    ],
)
def test_a_task_that_ends_as_a_dead_letter_says_so_to_who_follows_it_whatever_it_told_before(
    caller: App, worker_process: WorkerProcesses, how: str, reason: str, said: str
) -> None:
    """Row B041."""
    worker_process("-c", "1", app=APP)
    with caller.events.follow("dead.1") as follower:
        ending.apply_async((how,), task_id="dead.1", ignore_result=True)

        events = list(follower.events(timeout=20))

    assert [event.type for event in events] == ["task-dead", "task-failed"]
    assert {name: events[0].fields[name] for name in ("name", "queue", "reason")} == {
        "name": ending.name, "queue": "work", "reason": reason,
    }  # fmt: skip
    assert events[1].fields["exception"] == said


def test_a_failure_that_its_caller_is_told_of_is_no_dead_letter(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP)
    with caller.events.follow("told.1") as follower:
        reporting.apply_async(("fail",), task_id="told.1")

        assert [event.type for event in follower.events(timeout=20)] == ["task-progress", "task-failed"]


def test_states_of_its_own_reach_who_follows_a_task(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "1", app=APP)
    with caller.events.follow("state.1") as follower:
        ending.apply_async(("state",), task_id="state.1")

        events = list(follower.events(timeout=20))

    assert [event.type for event in events] == ["task-state", "task-succeeded"]
    assert (events[0].fields["state"], events[0].fields["meta"]) == ("LOADING", {"rows": 10})


def test_a_terminated_task_is_told_as_revoked(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "1", app=APP)
    with caller.events.follow("t-1") as follower:
        reporting.apply_async(("hang",), task_id="t-1")
        events = follower.events(timeout=20)
        assert next(events).type == "task-progress"

        caller.control.revoke("t-1", terminate=True)

        assert [event.type for event in events] == ["task-revoked"]


def test_following_a_task_that_tells_nothing_ends_with_the_timeout(caller: App) -> None:
    with caller.events.follow("silent") as follower, pytest.raises(ResultTimeout, match="was told within"):
        list(follower.events(timeout=0.1))


def test_a_task_whose_events_have_no_exchange_any_more_goes_on(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)
    assert reporting.delay("well").get(timeout=10) == "well"
    raw_client.channel.exchange_delete("amqp_tasks.events")

    results = [reporting.delay("well") for _ in range(20)]

    assert [result.get(timeout=10) for result in results] == ["well"] * 20
    worker.wait_output("progress is told to callers only", within=10)


def test_numbers_that_are_not_finite_are_not_told_and_the_task_goes_on(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP)
    result = reporting.delay("nonsense")

    assert list(result.updates(timeout=20)) == [Progress(1, 2, "half")]
    assert result.get(timeout=10) == "nonsense"


def test_progress_is_drawn_line_by_line_where_there_is_no_terminal(
    caller: App, worker_process: WorkerProcesses, capsys: pytest.CaptureFixture[str]
) -> None:
    worker_process("-c", "1", app=APP)

    assert reporting.delay("well").get(timeout=10, progress=True) == "well"
    assert group([reporting.s("well")] * 8).delay().get(timeout=10, progress=True) == ["well"] * 8
    with pytest.raises(ValueError, match="no"):
        group([reporting.s("well"), reporting.s("fail")]).delay().get(timeout=10, progress=True)

    drawn = capsys.readouterr().err.splitlines()
    # Those of one task depend on when it began.
    drawn = [line for line in drawn if "have ended" in line]
    assert drawn[:4] == [f"{done} of 8 tasks have ended" for done in (2, 4, 6, 8)]


def test_the_command_line_says_that_a_task_ended_as_a_dead_letter(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    command = [sys.executable, "-m", "amqp_tasks", "-b", vhost.url, "result", "dead.1", "--follow"]
    following = WorkerProcess(command, env=os.environ, cwd=tmp_path)
    try:
        following.wait_output("following")
        ending.apply_async(("reject",), task_id="dead.1", ignore_result=True)

        assert following.process.wait(20) == 1
        following.wait_output("dead letter of queue work: rejected")
        following.wait_output("FAILURE: rejected: not mine")
    finally:
        following.close()


def test_the_command_line_follows_a_task_of_another_process(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, tmp_path: Path
) -> None:
    worker_process("-c", "1", app=APP)
    go = tmp_path / "go"
    sent = progressing.apply_async((4, str(go)), ignore_result=True)
    command = [sys.executable, "-m", "amqp_tasks", "-b", vhost.url, "result", sent.id, "--follow"]
    following = [WorkerProcess([*command, *more], env=os.environ, cwd=tmp_path) for more in ((), ("--json",))]
    try:
        for each in following:
            each.wait_output("following")
        go.touch()

        assert [each.process.wait(20) for each in following] == [0, 0]
        following[0].wait_output("^4$")
        following[1].wait_output('"type": "task-succeeded"')
    finally:
        for each in following:
            each.close()
