"""`amqp-tasks revoke` and `unrevoke`."""

from __future__ import annotations

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import WorkerProcesses


def test_what_is_revoked_is_not_run_and_what_is_unrevoked_is(
    project: Project, worker_process: WorkerProcesses
) -> None:
    revoked = project.run("revoke", "one", "two", "one", "--terminate", "--signal", "int")
    pardoned = project.run("unrevoke", "two", "--json")
    worker_process("-c", "1", app="proj")

    refused = project.run("call", "proj.add", "--args", "[1, 2]", "--task-id", "one", "--wait")
    done = project.run("call", "proj.add", "--args", "[1, 2]", "--task-id", "two", "--wait")

    assert (revoked.code, revoked.out, revoked.err.strip()) == (ExitCode.OK, "", "revoked: 2 tasks")
    assert pardoned.data == {"unrevoked": ["two"]}
    assert refused.code == ExitCode.FAILED
    assert "TaskRevokedError" in refused.err
    assert (done.code, done.out) == (ExitCode.OK, "3\n"), done.err


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(project: Project) -> None:
    unknown = project.run("revoke", "one", "--signal", "SIGNONE")
    empty = project.run("revoke", "")
    none = project.run("revoke")

    assert unknown.code == ExitCode.USAGE
    assert "unknown signal 'SIGNONE': give a name such as 'SIGTERM'" in unknown.err
    assert empty.code == ExitCode.USAGE
    assert "task id" in empty.err
    assert none.code == ExitCode.USAGE
