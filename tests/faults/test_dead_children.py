"""A worker process dies: its task is tried three times and parked, its neighbours are neither lost nor charged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from amqp_tasks.errors import TaskDied
from support import Ledger, RawClient, Vhost, WorkerProcess, WorkerProcesses, eventually
from support.conservation import reason_of
from support.worker_app import QUEUE
from support.worker_client import Holding, WorkerClient
from support.workers import READY, TESTS

APP = "support.worker_app:app"
KILLERS = (
    ("signal", int(signal.SIGKILL)),
    ("exit", 1),
    ("segfault", None),
    ("exit", 0),
    ("close-all", 3),
)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_promise_07_killers_run_three_times_and_neighbours_are_not_charged(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    """Rows R03, U025."""
    killers = [client.act(f"boom-{n}", *how) for n, how in enumerate(KILLERS)]
    good = [client.act(f"good-{n}") for n in range(100)]

    worker = worker_process("-P", pool, "-c", "2", app=APP)
    for result in good:
        assert result.get(timeout=30) == ledger_key(good.index(result))
    for result in killers:
        with pytest.raises(TaskDied, match=r"worker died: .*, 3 times"):
            result.get(timeout=30)

    starts = {key: count for key, count in ledger.counts("start").items() if key.startswith("boom")}
    # In a pool of threads the first crash may be a neighbour's; from then on it runs alone.
    assert set(starts.values()) <= ({3} if pool == "prefork" else {2, 3})
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == 0
    dead = raw_client.drain(f"{QUEUE}.dead")
    assert {reason_of(message) for message in dead} == {"crash-limit"}
    assert {message.headers["id"] for message in dead} == {result.id for result in killers}
    # In a pool of threads a neighbour may end the process when a letter is confirmed and its message not acked: it is set aside again.
    assert len(dead) == len(killers) or pool == "threads"


def ledger_key(number: int) -> str:
    return f"good-{number}"


@pytest.mark.loses("early")
def test_a_task_that_is_acked_early_does_not_run_again_when_its_process_dies(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
) -> None:
    gate = str(tmp_path / "gate")
    client.app.send_task("act_early", ("first", "wait", gate), task_id="early", ignore_result=True)
    worker = worker_process("-c", "1", "--prefetch-multiplier", "1", app=APP)
    ledger.wait_for("start", "first")
    following = client.act("next")
    # The process has room for one: so the broker has sent this, as it knows the ack of the first.
    eventually(lambda: raw_client.depth(QUEUE) == 0)

    os.kill(ledger.entries("start")[0].pid, signal.SIGKILL)

    assert following.get(timeout=20) == "next"
    assert worker.stop() == 0
    assert ledger.counts("start")["first"] == 1
    assert raw_client.depth(QUEUE) == 0


def test_promise_06_the_task_of_a_killed_child_runs_again(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
) -> None:
    """Row U024."""
    worker = worker_process("-c", "2", app=APP)
    result = hold("victim")
    pid = ledger.entries("start")[0].pid

    os.kill(pid, signal.SIGKILL)
    hold.release()

    assert result.get(timeout=10) == "victim"
    assert ledger.counts("start")["victim"] == 2
    assert ledger.entries("done")[0].pid != pid
    eventually(lambda: raw_client.consumers(QUEUE) == 2)
    assert worker.stop() == 0


def test_promise_21_a_task_that_may_have_run_before_is_told_so(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
) -> None:
    worker = worker_process("-c", "1", app=APP)
    gate = tmp_path / "gate"
    again = client.act("again", "delivery", str(gate))
    os.kill(ledger.wait_for("start", "again")[0].pid, signal.SIGKILL)
    gate.touch()

    assert again.get(timeout=10) == [again.id, True, 0]
    once = client.act("once", "delivery", str(gate))
    assert once.get(timeout=10) == [once.id, False, 0]
    assert worker.stop() == 0


def test_promise_09_one_dead_child_is_one_dead_child(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
) -> None:
    """Row U006."""
    worker = worker_process("-c", "3", app=APP)
    results = [hold(f"held-{n}") for n in range(3)]
    pids = {entry.key: entry.pid for entry in ledger.entries("start")}

    os.kill(pids["held-0"], signal.SIGKILL)
    # The replacement has taken the task over while the neighbours are still at theirs.
    ledger.wait_for("start", "held-0", count=2)
    hold.release()

    assert [result.get(timeout=10) for result in results] == ["held-0", "held-1", "held-2"]
    assert ledger.counts("start") == {"held-0": 2, "held-1": 1, "held-2": 1}
    finished_by = {entry.key: entry.pid for entry in ledger.entries("done")}
    assert {key: finished_by[key] for key in ("held-1", "held-2")} == {
        key: pids[key] for key in ("held-1", "held-2")
    }
    assert worker.stop() == 0


def test_promise_10_children_of_a_killed_supervisor_end_and_their_tasks_go_to_another_worker(
    hold: Holding,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
) -> None:
    first = worker_process("-c", "2", app=APP)
    results = [hold(f"held-{n}") for n in range(2)]

    first.kill()
    assert first.survivors(within=2.0) == []
    hold.release()
    second = worker_process("-c", "2", app=APP)

    assert [result.get(timeout=10) for result in results] == ["held-0", "held-1"]
    assert second.stop() == 0


def test_promise_06_a_dead_machine_loses_nothing(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    sent = {f"key-{n}" for n in range(300)}
    client.many(sorted(sent), "sleep", 0.01)
    first = worker_process("-c", "2", app=APP)
    ledger.wait_for("done", count=50)

    first.kill_all()
    second = worker_process("-c", "2", app=APP)

    eventually(lambda: set(ledger.keys("done")) == sent, within=15)
    assert second.stop() == 0


def test_the_death_of_the_template_ends_the_node_with_an_error(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP)
    client.act("one").get(timeout=10)
    consumer_pid = ledger.entries("done")[0].pid
    (template,) = set(worker.children()) - {consumer_pid}

    os.kill(template, signal.SIGKILL)

    assert worker.wait() == 1
    assert worker.survivors(within=2.0) == []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_that_takes_its_process_from_the_supervisor_runs_three_times(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
) -> None:
    monkeypatch.setenv("AMQP_TASKS_WORKER_LOST_WAIT", "0.3")
    result = client.act("cuts", "close-link", str(tmp_path / "never"))

    worker = worker_process("-P", pool, "-c", "1", app=APP)
    with pytest.raises(TaskDied, match="3 times"):
        result.get(timeout=20)

    assert ledger.counts("start") == {"cuts": 3}
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_hook_that_takes_its_process_from_the_supervisor_is_charged_to_its_task_and_not_to_the_next(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, pool: str
) -> None:
    breaking = client.app.send_task("act_closing", ("breaks",))
    following = client.act("next")

    worker = worker_process("-P", pool, "-c", "1", app=APP)
    with pytest.raises(TaskDied, match="3 times"):
        breaking.get(timeout=20)
    assert following.get(timeout=10) == "next"

    assert worker.stop() == 0
    assert ledger.counts("start") == {"breaks": 3, "next": 1}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), (3, 3), (None, 0), ("why", 1)])
def test_a_child_that_a_task_forks_ends_there_and_answers_for_nothing(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: str,
    how: str | int | None,
    code: int,
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    assert client.act("forks", "fork", how).get(timeout=10) == code
    assert client.act("next").get(timeout=10) == "next"

    assert worker.stop() == 0
    assert raw_client.depth(f"{QUEUE}.dead") == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_child_that_a_task_with_a_time_limit_forks_ends_with_its_own_code(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, pool: str
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    assert client.app.send_task("act", ("forks", "fork", 3), soft_time_limit=60).get(timeout=10) == 3

    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_child_that_a_hook_forks_ends_there(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    assert client.app.send_task("act_forking", ("alive",)).get(timeout=10) == "alive"
    dead = client.app.send_task("act_forking", ("dead", "exit", 1))
    with pytest.raises(TaskDied, match="3 times"):
        dead.get(timeout=20)
    assert client.act("next").get(timeout=10) == "next"

    assert worker.stop() == 0
    assert raw_client.depth(f"{QUEUE}.dead") == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize(("hook", "code"), [("before_start", 0), ("on_success", 0), ("on_success", 3)])
def test_a_child_that_a_hook_forks_runs_nothing_that_comes_after_it(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, pool: str, hook: str, code: int
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    client.app.send_task("act_forking_once", ("forks", hook, code)).get(timeout=10)
    assert client.act("next").get(timeout=10) == "next"

    assert worker.stop() == 0
    assert ledger.counts("start") == {"forks": 1, "next": 1}
    assert ledger.counts("child") == {str(code): 1}
    assert ledger.counts("after") == {"forks": 1}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_child_that_the_hook_of_a_body_that_cannot_be_read_forks_ends_there(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    worker = worker_process("-P", pool, "-c", "1", app=APP)

    raw_client.publish(
        QUEUE,
        b"no JSON",
        {"task": "act_forking", "id": "unreadable"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    assert client.act("next").get(timeout=10) == "next"

    assert worker.stop() == 0
    assert raw_client.depth(f"{QUEUE}.dead") == 1


def test_as_process_1_a_worker_reaps_what_tasks_leave_behind(
    client: WorkerClient, ledger: Ledger, raw_client: RawClient, vhost: Vhost, tmp_path: Path
) -> None:
    worker = _as_process_1(tmp_path, vhost.url, ledger)
    try:
        worker.wait_output(READY, within=20)
        client.act("orphan", "orphan").get(timeout=10)
        ledger.wait_for("orphan-ended", "orphan")

        eventually(lambda: not _zombies(worker))
        (inner,) = psutil.Process(worker.pid).children()
        inner.terminate()

        assert worker.wait() == 0
    finally:
        assert worker.close() == []


def _as_process_1(folder: Path, url: str, ledger: Ledger) -> WorkerProcess:
    as_root = () if os.getuid() == 0 else ("--map-root-user",)
    unshare = ("unshare", *as_root, "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.fail(
            f"cannot make a process namespace ({' '.join(unshare)}): run as root, or allow user namespaces"
        )
    env = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "AMQP_TASKS_BROKER_URL": url,
        "AMQP_TASKS_TEST_LEDGER": str(ledger.path),
    }
    command = [*unshare, sys.executable, "-m", "amqp_tasks", "-A", APP, "worker", "-c", "1"]
    return WorkerProcess(command, env=env, cwd=folder)


def _zombies(worker: WorkerProcess) -> list[psutil.Process]:
    family = psutil.Process(worker.pid).children(recursive=True)
    return [each for each in family if each.status() == psutil.STATUS_ZOMBIE]
