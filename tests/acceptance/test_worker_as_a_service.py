"""`amqp-tasks worker` under a service manager: pidfile, user, titles in the process list."""

from __future__ import annotations

import os
import re
import sys

import psutil
import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import SECRET, Vhost, WorkerProcesses, eventually


def test_the_pidfile_holds_the_supervisor_and_keeps_a_second_one_out(
    project: Project, worker_process: WorkerProcesses
) -> None:
    pidfile = project.path / "mail.pid"
    arguments = ("-Q", "hipri", "-c", "1", "-n", "mail@%h", "--pidfile", "%n.pid")
    worker = worker_process(*arguments, app="proj")

    second = project.run("worker", *arguments)

    assert pidfile.read_text() == f"{worker.pid}\n"
    assert second.code == ExitCode.USAGE
    assert f"process {worker.pid} is running" in second.err
    assert worker.stop() == ExitCode.OK
    assert not pidfile.exists()


def test_its_health_is_told_by_the_file_that_the_environment_names(
    project: Project, worker_process: WorkerProcesses
) -> None:
    """Row U070: by a file, and not by a message that a busy worker would have to answer."""
    path = str(project.path / "health.json")
    project.environment["AMQP_TASKS_WORKER_HEALTH_FILE"] = path
    before = project.run("health")
    worker = worker_process(
        "-Q", "hipri", "-c", "1", "-n", "mail@box", app="proj", env={"AMQP_TASKS_WORKER_HEALTH_FILE": path}
    )

    eventually(lambda: project.run("health").code == ExitCode.OK)
    # Neither the app nor the broker is asked.
    live = project.run("health", "--live", AMQP_TASKS_APP="missing", AMQP_TASKS_BROKER_URL="nonsense://")

    assert (live.code, live.out, live.err) == (ExitCode.OK, "mail@box: running\n", "")
    assert (before.code, before.err) == (ExitCode.FAILED, "")
    assert project.run("health", "--json").data["report"]["queues"] == ["hipri"]
    assert worker.stop() == ExitCode.OK
    assert project.run("health", "--live").code == ExitCode.FAILED


def test_a_worker_may_be_told_to_stay_who_it_is(project: Project, worker_process: WorkerProcesses) -> None:
    user, group = str(os.geteuid()), str(os.getegid())

    worker = worker_process("-Q", "hipri", "-c", "1", "--uid", user, "--gid", group, app="proj")

    assert worker.stop() == ExitCode.OK


def test_files_of_the_worker_and_its_tasks_are_made_with_its_umask(
    project: Project, worker_process: WorkerProcesses
) -> None:
    """Row P129."""
    project.write(
        "files.py",
        """
        from pathlib import Path

        from proj import app


        @app.task
        def make(name: str) -> None:
            Path(name).touch()
        """,
    )
    arguments = ("-Q", "hipri", "-c", "1", "-I", "files", "--umask", "027", "-f", "worker.log")
    worker = worker_process(*arguments, app="proj", ready=None)

    assert (
        project.run("call", "files.make", "-a", '["made"]', "--queue", "hipri", "--wait").code == ExitCode.OK
    )

    modes = [(project.path / name).stat().st_mode & 0o777 for name in ("made", "worker.log")]
    assert modes == [0o640, 0o640]
    assert worker.stop() == ExitCode.OK


@pytest.mark.parametrize("mask", ["8", "-1", "1000", "rwx"])
def test_a_umask_that_is_none_is_a_mistake_of_usage(project: Project, mask: str) -> None:
    done = project.run("worker", f"--umask={mask}")

    assert done.code == ExitCode.USAGE
    assert "no octal number from 0 to 777" in done.err


def test_an_unknown_user_is_a_mistake_of_usage(project: Project) -> None:
    done = project.run("worker", "--uid", "no such user")

    assert done.code == ExitCode.USAGE
    assert "unknown user 'no such user'" in done.err


def test_the_process_list_shows_nodes_and_no_password(
    project: Project, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    url = vhost.limited_url(configure=".*", write=".*", read=".*")
    worker = worker_process("-b", url, "-Q", "hipri", "-c", "2", "-n", "mail@box", app="proj")

    def titles() -> list[str]:
        found = [" ".join(psutil.Process(pid).cmdline()).rstrip() for pid in (worker.pid, *worker.children())]
        assert all(each.startswith("amqp-tasks: mail@box") for each in found)
        return sorted(found)

    assert eventually(titles) == [
        "amqp-tasks: mail@box",
        "amqp-tasks: mail@box: process 1",
        "amqp-tasks: mail@box: process 2",
        "amqp-tasks: mail@box: template",
    ]
    assert not re.search(SECRET, worker.output)
    assert worker.stop() == ExitCode.OK


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_worker_may_be_started_with_closed_streams(
    project: Project, worker_process: WorkerProcesses, closed: str
) -> None:
    command = f"exec {sys.executable} -m amqp_tasks worker -Q hipri -c 1 -f worker.log {closed}"
    worker = worker_process.run(["sh", "-c", command], env=project.environment, ready=None)

    called = project.run("call", "proj.add", "--args", "[1, 2]", "--wait", "--timeout", "30")

    assert (called.code, called.out) == (ExitCode.OK, "3\n"), called.err
    assert worker.stop() == ExitCode.OK
    assert "Traceback" not in (project.path / "worker.log").read_text()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_worker_whose_stdout_is_full_goes_on_without_its_banner(
    project: Project, worker_process: WorkerProcesses, unbuffered: str
) -> None:
    project.environment["PYTHONUNBUFFERED"] = unbuffered
    command = f"exec {sys.executable} -m amqp_tasks worker -Q hipri -c 1 >/dev/full"
    worker = worker_process.run(["sh", "-c", command], env=project.environment, ready="ready")

    called = project.run(
        "call", "proj.add", "--args", "[1, 2]", "--queue", "hipri", "--wait", "--timeout", "30"
    )

    assert (called.code, called.out) == (ExitCode.OK, "3\n"), called.err
    worker.wait_output("the banner cannot be written to stdout: No space left on device")
    assert worker.stop() == ExitCode.OK
    assert "Traceback" not in worker.output
