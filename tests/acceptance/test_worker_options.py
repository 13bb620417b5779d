"""Options of `amqp-tasks worker`, seen from outside."""

from __future__ import annotations

import os
import re

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import RawClient, WorkerProcesses


@pytest.mark.parametrize("spelling", [["-l", "info"], ["-l", "INFO"], ["--loglevel=Info"]])
def test_the_loglevel_is_taken_in_any_case(
    project: Project, worker_process: WorkerProcesses, spelling: list[str]
) -> None:
    worker = worker_process("-Q", "hipri", "-c", "1", *spelling, app="proj")

    assert "INFO" in worker.output


def test_the_banner_says_who_where_and_what(project: Project, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-Q", "hipri,lopri", "-c", "2", "-n", "w1@%h", app="proj")

    shown = worker.output
    assert re.search(r"^w1@\S+ amqp-tasks \d", shown, re.MULTILINE)
    assert re.search(r"broker: +amqp://guest:\*\*@", shown)
    assert re.search(r"concurrency: +2 \(prefork\)", shown)
    assert re.search(r"hipri: .*key=hipri type=quorum", shown)
    assert shown.index("proj.add") < shown.index("proj.fail")


def test_quiet_hides_the_banner(project: Project, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-Q", "hipri", "-c", "1", "-q", app="proj")

    assert "[queues]" not in worker.output


def test_excluded_queues_are_not_consumed(project: Project, worker_process: WorkerProcesses) -> None:
    worker_process("-X", "lopri", "-c", "1", app="proj")

    rows = {row["queue"]: row["consumers"] for row in project.run("queues", "--json").data}
    assert (rows["hipri"], rows["default"], rows["lopri"]) == (1, 1, None)


def test_included_modules_bring_their_tasks(project: Project, worker_process: WorkerProcesses) -> None:
    project.write(
        "extra.py", "from proj import app\n\n\n@app.task\ndef double(x: int) -> int:\n    return 2 * x\n"
    )
    worker_process("-Q", "hipri", "-c", "1", "-I", "extra", app="proj")

    assert project.run("call", "extra.double", "--args", "[4]", "--queue", "hipri", "--wait").out == "8\n"


def test_an_included_module_that_does_not_exist_is_named(project: Project) -> None:
    done = project.run("worker", "-I", "no_such_module_at_all")

    assert done.code == ExitCode.USAGE
    assert "no_such_module_at_all" in done.err
    assert "Traceback" not in done.err


def test_the_log_goes_to_a_file(project: Project, worker_process: WorkerProcesses) -> None:
    worker_process("-Q", "hipri", "-c", "1", "-f", "worker.log", app="proj", ready=r"\[tasks\]")

    assert project.run("call", "proj.add", "--args", "[1, 2]", "--wait").out == "3\n"
    assert "proj.add" in (project.path / "worker.log").read_text()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_serves_tasks(project: Project, worker_process: WorkerProcesses, pool: str) -> None:
    worker = worker_process("-Q", "hipri", "-P", pool, "-c", "1", app="proj")

    assert project.run("call", "proj.add", "--args", "[1, 2]", "--wait").out == "3\n"
    assert worker.stop() == ExitCode.OK


def test_concurrency_auto_is_the_usable_cpus(project: Project, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-Q", "hipri", "-P", "threads", "-c", "auto", app="proj")

    shown = re.search(r"concurrency: +(\d+) ", worker.output)
    assert shown is not None
    assert 1 <= int(shown[1]) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("option", ["--purge", "--discard"])
def test_purging_removes_what_waits_in_the_workers_own_queues_and_says_how_much(
    project: Project, worker_process: WorkerProcesses, raw_client: RawClient, option: str
) -> None:
    """Row P124."""
    assert project.run("topology", "apply").code == ExitCode.OK
    for queue in ("hipri", "hipri", "hipri.dead", "lopri"):
        raw_client.publish(queue, b"stale")

    worker = worker_process("-Q", "hipri", "-c", "1", option, "--force", app="proj")

    worker.wait_output("2 messages of queue hipri were discarded")
    assert [raw_client.depth(queue) for queue in ("hipri", "hipri.dead", "lopri")] == [0, 1, 1]
    assert project.run("call", "proj.add", "--args", "[1, 2]", "--queue", "hipri", "--wait").out == "3\n"
    assert worker.stop() == ExitCode.OK


def test_a_worker_asks_before_it_purges(project: Project, raw_client: RawClient) -> None:
    assert project.run("topology", "apply").code == ExitCode.OK
    raw_client.publish("hipri", b"stale")

    refused = project.run("worker", "-Q", "hipri", "--purge")
    declined = project.run_at_terminal("n\n", "worker", "-Q", "hipri", "--purge")

    assert (refused.code, declined) == (ExitCode.USAGE, ExitCode.FAILED)
    assert "asks before it removes messages" in refused.err
    assert raw_client.depth("hipri") == 1
