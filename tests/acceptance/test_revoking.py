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
    unknown = project.run("revoke", "one", "--terminate", "--signal", "SIGNONE")
    empty = project.run("revoke", "")
    none = project.run("revoke")

    assert unknown.code == ExitCode.USAGE
    assert "unknown signal 'SIGNONE': give a name such as 'SIGTERM'" in unknown.err
    assert empty.code == ExitCode.USAGE
    assert "task id" in empty.err
    assert none.code == ExitCode.USAGE


def test_tasks_are_revoked_by_a_stamp_and_let_again(
    project: Project, worker_process: WorkerProcesses
) -> None:
    revoked = project.run(
        "revoke", "--stamp", "batch=a", "--stamp", "run=5", "--stamp", "commit=12e4567", "--json"
    )
    worker_process("-c", "1", app="proj")

    assert revoked.data == {"revoked": [], "stamps": ["batch=a", "run=5", "commit=12e4567"]}
    assert _run_stamped(project, batch="a") == "TaskRevokedError"
    assert _run_stamped(project, run=5) == "TaskRevokedError"
    assert _run_stamped(project, run="5") == "TaskRevokedError"
    assert _run_stamped(project, commit="12e4567") == "TaskRevokedError"
    assert _run_stamped(project, batch="b", run=6) == "3"

    pardoned = project.run("unrevoke", "one", "--stamp", "batch=a")
    assert pardoned.err.strip() == "unrevoked: 1 task, all with batch=a"
    assert _run_stamped(project, batch="a") == "3"


def test_a_stamp_without_a_name_or_a_value_is_refused(project: Project) -> None:
    for stamp in ("batch", "=a"):
        refused = project.run("revoke", "--stamp", stamp)
        assert refused.code == ExitCode.USAGE
        assert "--stamp takes NAME=VALUE" in refused.err
    assert "which tasks?" in project.run("unrevoke").err


def _run_stamped(project: Project, **stamps: object) -> str:
    """What comes of a call with these stamps: the result, or the error's name."""
    program = (
        "from proj import add\n"
        "try:\n"
        f"    print(add.apply_async((1, 2), stamps={stamps!r}).get(timeout=10))\n"
        "except Exception as exc:\n"
        "    print(type(exc).__name__)\n"
    )
    return project.run_python("-c", program).out.strip()
