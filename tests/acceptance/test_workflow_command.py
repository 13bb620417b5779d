"""`amqp-tasks workflow`: failed workflows are seen, go on, and are given up (B061)."""

from __future__ import annotations

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import WorkerProcesses, eventually

APP = """
    import os
    from pathlib import Path

    from amqp_tasks import App

    app = App("proj")

    @app.task
    def add(*numbers: int) -> int:
        with open("done", "a") as file:
            file.write(f"{sum(numbers)}\\n")
        return sum(numbers)

    @app.task
    def load(*numbers: int) -> int:
        if not Path("mended").exists():
            raise ValueError("no amqp://me:s3cr3t@mq/ \\x1b[2J")
        return sum(numbers)
"""
SEND = """
    from amqp_tasks import Workflow
    from proj import add, load

    workflow = Workflow(id="nightly")
    workflow.step("first", add.s(1)).step("left", load.s(2), after="first").step("right", load.s(3), after="first")
    workflow.step("both", add.s(1000), after=["left", "right"])
    workflow.delay().get(timeout=30, propagate=False)
"""


@pytest.fixture
def failed(project: Project, worker_process: WorkerProcesses) -> Project:
    """A project with a worker, and a workflow of which two steps have failed."""
    project.write("proj.py", APP)
    project.write("send.py", SEND)
    worker_process("-c", "1", app="proj", env=project.environment, cwd=project.path)
    sent = project.run_python("send.py")
    assert sent.code == 0, sent.err
    eventually(lambda: _steps(project, ["left", "right"]), within=20)
    return project


def _steps(project: Project, expected: list[str]) -> None:
    assert sorted(each["step"] for each in project.run("workflow", "list", "--json").data) == expected


def _done(project: Project) -> list[str]:
    return (project.path / "done").read_text().split()


def test_a_failed_workflow_is_shown_and_resumed(failed: Project) -> None:
    listed = failed.run("workflow", "list")
    shown = failed.run("workflow", "show", "nightly", "--json")
    unknown = failed.run("workflow", "show", "weekly")
    (failed.path / "mended").touch()
    one = failed.run("workflow", "resume", "nightly", "--step", "left")
    rest = failed.run("workflow", "resume", "nightly", "--json")
    none = failed.run("workflow", "resume", "nightly")

    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [
        ["nightly", "left"],
        ["nightly", "right"],
    ]
    assert {each["workflow"] for each in shown.data} == {"nightly"}
    for text in (listed.out, shown.out):
        assert "s3cr3t" not in text
        assert "\x1b" not in text
    assert (unknown.code, none.code) == (ExitCode.FAILED, ExitCode.FAILED)
    assert (one.code, one.out) == (ExitCode.OK, "1 step resumed\n")
    assert (rest.code, rest.data) == (ExitCode.OK, {"resumed": 1, "failed": []})
    eventually(lambda: _is(_done(failed), ["1", "1007"]), within=20)


def test_a_failed_workflow_is_given_up(failed: Project) -> None:
    refused = failed.run("workflow", "discard", "nightly")
    done = failed.run("workflow", "discard", "nightly", "--yes")

    assert refused.code == ExitCode.USAGE
    assert "--yes" in refused.err
    assert (done.code, done.out) == (ExitCode.OK, "2 removed\n")
    _steps(failed, [])


def test_what_a_purge_has_left_of_a_failed_workflow_is_given_up(failed: Project) -> None:
    purged = failed.run("dlq", "purge", "--yes")
    listed = failed.run("workflow", "discard", "nightly", "-Q", "default", "--yes")
    done = failed.run("workflow", "discard", "nightly", "--yes")
    again = failed.run("workflow", "discard", "nightly", "--yes")

    assert purged.code == ExitCode.OK, purged.err
    assert (listed.code, listed.out) == (ExitCode.FAILED, "0 removed\n")
    assert (done.code, done.out) == (ExitCode.OK, "1 removed\n")
    assert (again.code, again.out) == (ExitCode.FAILED, "0 removed\n")
    assert "a workflow whose id is in use runs" in again.err


def _is(found: object, expected: object) -> None:
    assert found == expected
