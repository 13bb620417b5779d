"""`amqp-tasks worker` under a service manager: pidfile, user, titles in the process list."""

from __future__ import annotations

import os
import re

import psutil

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


def test_a_worker_may_be_told_to_stay_who_it_is(project: Project, worker_process: WorkerProcesses) -> None:
    user, group = str(os.geteuid()), str(os.getegid())

    worker = worker_process("-Q", "hipri", "-c", "1", "--uid", user, "--gid", group, app="proj")

    assert worker.stop() == ExitCode.OK


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
