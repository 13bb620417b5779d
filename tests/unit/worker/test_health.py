"""What a node says of itself: whether it is ready and live, and the file that says so. Row U002."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.transport import ConsumedQueues
from amqp_tasks.worker._health import (
    REPLACING,
    SILENCE,
    STUCK,
    Health,
    HealthFile,
    NodeFacts,
    ProcessReport,
    Standing,
    State,
    keeping_health_file,
)
from amqp_tasks.worker._records import RecordTable

NOW = 1000.0
RUNNING, STARTING, STOPPING = State.RUNNING, State.STARTING, State.STOPPING


def process(pid: int = 2, state: State = RUNNING, **facts: Any) -> ProcessReport:
    given: dict[str, Any] = {
        "consumed": ("a",),
        "missing": (),
        "absent": (),
        "short_for": 0.0,
        "stuck_for": 0.0,
        "silent_for": 0.1,
        "running": 1,
    }
    return ProcessReport(pid=pid, state=state, **(given | facts))


def without(seconds: float, **facts: Any) -> ProcessReport:
    given: dict[str, Any] = {"missing": ("a",), "short_for": seconds, "stuck_for": seconds}
    return process(consumed=(), **(given | facts))


class Node:
    """One of two processes."""

    def __init__(self, *, hung_after: float | None = None) -> None:
        self.paused: tuple[str, ...] = ()
        self.is_connected = True
        facts = NodeFacts(
            node="worker@box",
            queue_names=("a",),
            processes=2,
            hung_after=hung_after,
            paused=lambda: self.paused,
            is_connected=lambda: self.is_connected,
        )
        self.health = Health((), facts)

    def report(self, *processes: ProcessReport, state: State = RUNNING, now: float = NOW) -> dict[str, Any]:
        return self.health.report(state, processes, now)


@pytest.fixture
def node() -> Node:
    return Node()


def test_one_whose_processes_consume_all_is_well(node: Node) -> None:
    report = node.report(process(2), process(3))

    assert (report["not_ready"], report["not_live"], report["consumers_ok"]) == ([], [], True)
    assert (report["state"], report["node"], report["pid"]) == ("running", "worker@box", os.getpid())
    assert [each["consumed"] for each in report["processes"]] == [("a",), ("a",)]


@pytest.mark.parametrize("state", [STARTING, STOPPING])
def test_one_that_starts_or_stops_is_live_and_not_ready(node: Node, state: State) -> None:
    report = node.report(process(2, state), state=state)

    assert len(report["not_ready"]) == 1
    assert report["not_live"] == []


def test_a_queue_without_consumer_is_named(node: Node) -> None:
    report = node.report(process(2), without(0.5, pid=3))

    assert report["consumers_ok"] is False
    assert report["not_ready"] == ["process 3 does not consume 'a': its log says why"]
    assert report["not_live"] == []


def test_a_queue_that_is_missed_for_long_beside_a_connection_of_the_node_needs_a_restart(node: Node) -> None:
    node.report(process(2), process(3), now=NOW - STUCK)

    report = node.report(process(2), without(STUCK, pid=3))

    assert report["not_live"] == [
        "process 3 has not consumed 'a' for 120 s, although the broker is there: restart it"
    ]


def test_a_broker_that_is_away_is_no_reason_for_a_restart(node: Node) -> None:
    node.is_connected = False

    report = node.report(without(9 * STUCK, pid=2), without(9 * STUCK, pid=3))

    assert report["state"] == "reconnecting"
    assert all("the connection to the broker is lost" in fault for fault in report["not_ready"])
    assert len(report["not_ready"]) == 2
    assert report["not_live"] == []
    # Its processes may hear later than the node that the broker is back.
    node.is_connected = True
    back = node.report(without(9 * STUCK, pid=2), process(3), now=NOW + STUCK)
    assert (back["state"], back["not_live"]) == ("running", [])
    assert node.report(without(9 * STUCK, pid=2), process(3), now=NOW + 2 * STUCK)["not_live"]


def test_a_node_that_cannot_follow_the_journal_runs_all_the_same(node: Node) -> None:
    node.is_connected = False

    report = node.report(process(2), process(3))

    assert (report["state"], report["not_ready"]) == ("running", [])


def test_a_queue_that_the_broker_does_not_have_is_no_reason_for_a_restart(node: Node) -> None:
    node.report(process(2), process(3), now=NOW - STUCK)

    report = node.report(process(2), without(9 * STUCK, pid=3, absent=("a",), stuck_for=0.0))

    assert report["not_ready"] == [
        "process 3 does not consume 'a': the broker does not let 'a' be consumed now, its log says why"
    ]
    assert report["not_live"] == []


def test_a_process_has_time_to_take_the_place_of_another(node: Node) -> None:
    new = without(REPLACING - 1, pid=3, state=STARTING)
    late = without(REPLACING, pid=3, state=STARTING)

    assert node.report(process(2), new)["not_ready"] == []
    assert node.report(process(2), late)["not_ready"] == ["process 3 does not consume 'a': its log says why"]


def test_too_few_processes_are_told_when_that_lasts(node: Node) -> None:
    recycling = process(3, STOPPING)

    assert node.report(process(2), recycling)["not_ready"] == []
    later = node.report(process(2), now=NOW + REPLACING)

    assert later["not_ready"] == ["1 of 2 processes run: its log says why the others ended"]
    assert later["not_live"] == []
    assert node.report(process(2), process(4), now=NOW + 60)["not_ready"] == []
    assert node.report(process(2), now=NOW + 61)["not_ready"] == []


def test_a_silent_process_is_not_ready_and_is_its_supervisors_to_end(node: Node) -> None:
    report = node.report(process(2), process(3, silent_for=5 * SILENCE))

    assert report["not_ready"] == [
        "process 3 has given no sign of life for 50 s: it is replaced if it hangs, see worker_hung_timeout"
    ]
    assert report["not_live"] == []


def test_a_silent_one_without_a_supervisor_needs_a_restart() -> None:
    alone = Node(hung_after=60.0)

    assert alone.report(process(silent_for=59))["not_live"] == []
    assert alone.report(process(silent_for=61))["not_live"] == [
        "process 2 has given no sign of life for 61 s: restart it"
    ]


def test_a_process_begins_short_and_is_whole_when_it_says_that_nothing_is_missing() -> None:
    records = RecordTable(1, 2).of_process(0)
    records.give_sign(NOW - 3)
    records.mark(1, "task")
    standing = Standing(NOW - 10)

    def report() -> tuple[State, float, float, int]:
        found = standing.report(7, records, NOW, is_stopping=False)
        return found.state, found.short_for, found.silent_for, found.running

    assert report() == (STARTING, 10, 3, 1)
    standing.note(ConsumedQueues(missing=("a",)), NOW - 9)
    assert report() == (STARTING, 10, 3, 1)
    standing.note(ConsumedQueues(consumed=("a",)), NOW - 8)
    assert report() == (RUNNING, 0, 3, 1)
    standing.note(ConsumedQueues(missing=("a",)), NOW - 4)
    standing.note(ConsumedQueues(missing=("a", "b")), NOW - 2)
    assert report() == (RUNNING, 4, 3, 1)
    records.give_sign(0.0)
    assert standing.report(7, records, NOW, is_stopping=True).silent_for == 0
    assert standing.report(7, records, NOW, is_stopping=True).state is STOPPING


def test_a_process_is_stuck_only_for_as_long_as_it_misses_a_queue_that_it_could_consume() -> None:
    records = RecordTable(1, 1).of_process(0)
    standing = Standing(NOW - 10)

    def stuck_for() -> float:
        return standing.report(7, records, NOW, is_stopping=False).stuck_for

    assert stuck_for() == 10
    standing.note(ConsumedQueues(missing=("a",), absent=("a",)), NOW - 9)
    assert stuck_for() == 0
    standing.note(ConsumedQueues(missing=("a", "b"), absent=("a",)), NOW - 8)
    assert stuck_for() == 8


# The file.


def test_the_file_is_the_owners_and_goes_with_the_node(tmp_path: Path) -> None:
    path = tmp_path / "health.json"

    with keeping_health_file(str(path)) as file:
        assert file is not None
        file.tell({"pid": os.getpid(), "state": "running"})

        assert json.loads(path.read_bytes()) == {"pid": os.getpid(), "state": "running"}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    path.touch()

    with keeping_health_file(str(path)) as file:
        assert file is not None


def test_a_task_may_change_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with keeping_health_file("health.json") as file:
        assert file is not None
        monkeypatch.chdir("/")
        file.tell({"pid": os.getpid()})
        assert json.loads((tmp_path / "health.json").read_bytes()) == {"pid": os.getpid()}
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "health.json", tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    (tmp_path / ".health.json.new").symlink_to(victim)

    with keeping_health_file(str(path)) as file:
        assert file is not None
        file.tell({"pid": os.getpid()})

        assert not path.is_symlink()
    assert victim.read_text() == "precious"


def test_a_file_of_another_living_worker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps(written(os.getppid())))

    with (
        pytest.raises(ConfigurationError, match=rf"kept by process {os.getppid()}: name another"),
        keeping_health_file(str(path)),
    ):
        pass
    assert path.exists()


def written(pid: int, *, age: float = 1.0) -> dict[str, Any]:
    return {"pid": pid, "monotonic": time.monotonic() - age, "max_age": 10.0}


@pytest.mark.parametrize(
    "report",
    [
        dict,
        lambda: written(999999999),
        lambda: written(os.getpid()),
        lambda: written(os.getppid(), age=11),
        lambda: written(os.getppid(), age=-1e9),
    ],
    ids=["begun", "of one that is gone", "of itself", "too old", "from before the machine was started"],
)
def test_a_file_of_nobody_else_who_lives_is_taken_over(
    tmp_path: Path, report: Callable[[], dict[str, Any]]
) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps(report()))

    with keeping_health_file(str(path)):
        assert json.loads(path.read_bytes()) == {}


@pytest.mark.parametrize("text", ["notes", "[1]", '{"a": 1}', '{"pid": "x"}'])
def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="no health file of ours"), keeping_health_file(str(path)):
        pass
    assert path.read_text() == text


def test_a_path_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing" / "health.json")

    with (
        pytest.raises(ConfigurationError, match=r"cannot write health file '.*missing.*': No such file"),
        keeping_health_file(missing),
    ):
        pass


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with (
        pytest.raises(ConfigurationError, match="no health file of ours"),
        keeping_health_file(str(tmp_path / "pipe")),
    ):
        pass


def test_a_file_that_cannot_be_written_later_is_told_once_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = HealthFile(folder / "health.json")
    file.claim()
    (folder / "health.json").unlink()
    folder.rmdir()

    file.tell({})
    file.tell({})
    folder.mkdir()
    file.tell({})
    (folder / "health.json").unlink()
    folder.rmdir()
    file.tell({})

    assert [getattr(each, "action", "") for each in caplog.records] == ["health_file"] * 2


def test_without_a_path_there_is_no_file() -> None:
    with keeping_health_file(None) as file:
        assert file is None
