"""`call`, `result`, and a worker that serves them."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import WorkerProcesses


def test_call_waits_for_a_result_and_prints_it(project: Project, worker_process: WorkerProcesses) -> None:
    worker_process("-Q", "hipri,lopri", "-c", "1", app="proj")

    added = project.run("call", "proj.add", "--args", "[2, 3]", "--wait")
    as_json = project.run("call", "proj.add", "--kwargs", '{"x": 2, "y": 3}', "--wait", "--json")

    assert (added.code, added.out) == (ExitCode.OK, "5\n"), added.err
    assert as_json.data["state"] == "SUCCESS"
    assert as_json.data["result"] == 5


def test_a_failed_task_is_exit_code_1_with_its_error(
    project: Project, worker_process: WorkerProcesses
) -> None:
    worker_process("-Q", "hipri,lopri", "-c", "1", app="proj")

    failed = project.run("call", "proj.fail", "--args", '["no \\u001b[31mgood"]', "--wait")
    as_json = project.run("call", "proj.fail", "--args", '["no good"]', "--wait", "--json")

    assert (failed.code, failed.out) == (ExitCode.FAILED, "")
    assert "ValueError" in failed.err
    assert "\x1b" not in failed.err
    assert (as_json.code, as_json.data["state"]) == (ExitCode.FAILED, "FAILURE")
    assert "no good" in as_json.data["error"]["message"]


def test_call_prints_the_id_that_it_was_given(project: Project) -> None:
    task_id = str(uuid.uuid4())

    sent = project.run("call", "proj.add", "--args", "[2, 3]", "--task-id", task_id)

    assert (sent.code, sent.out) == (ExitCode.OK, f"{task_id}\n"), sent.err


def test_call_without_a_worker_ends_with_the_timeout(project: Project) -> None:
    waited = project.run("call", "proj.add", "--args", "[2, 3]", "--wait", "--timeout", "0.5")

    assert waited.code == ExitCode.TIMEOUT
    assert waited.err.startswith("error: ")


def test_call_needs_no_code_of_the_task(project: Project, worker_process: WorkerProcesses) -> None:
    worker_process("-Q", "hipri", "-c", "1", app="proj")
    (project.path / "proj.py").unlink()
    del project.environment["AMQP_TASKS_APP"]

    added = project.run("call", "proj.add", "--args", "[2, 3]", "--queue", "hipri", "--wait")

    assert (added.code, added.out) == (ExitCode.OK, "5\n"), added.err


def test_result_over_rpc_says_that_another_process_cannot_know(project: Project) -> None:
    asked = project.run("result", str(uuid.uuid4()))

    assert asked.code == ExitCode.RESULT_UNKNOWN
    assert "rpc" in asked.err
    assert asked.err.count("\n") == 1


def test_a_worker_takes_only_its_queues_and_stops_with_0(
    project: Project, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-Q", "hipri", "-c", "1", app="proj")

    project.run("call", "proj.fail", "--args", '["x"]')
    project.run("call", "proj.add", "--args", "[1, 1]", "--wait")
    ready = {row["queue"]: row["ready"] for row in project.run("queues", "hipri", "lopri", "--json").data}
    worker.signal(signal.SIGINT)

    assert ready == {"hipri": 0, "lopri": 1}
    assert worker.wait(within=20) == ExitCode.OK


def test_pyproject_names_the_app_so_that_queues_are_enough(
    project: Project, worker_process: WorkerProcesses
) -> None:
    del project.environment["AMQP_TASKS_APP"]
    project.write("pyproject.toml", '[tool.amqp-tasks]\napp = "proj"\n')
    worker_process("-Q", "hipri", "-c", "1", app=None)

    assert project.run("call", "proj.add", "--args", "[1, 1]", "--wait").out == "2\n"


def test_app_start_is_the_command_line(project: Project) -> None:
    project.write("manage.py", "from proj import app\n\nif __name__ == '__main__':\n    app.start()\n")

    done = subprocess.run(
        [sys.executable, "manage.py", "topology", "explain", "proj.add"],
        cwd=project.path,
        env={name: value for name, value in project.environment.items() if name != "AMQP_TASKS_APP"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == ExitCode.OK, done.stderr
    assert "hipri" in done.stdout
