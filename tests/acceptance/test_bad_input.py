"""Mistakes of users: each ends in one line with its remedy and in its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.project import Done, Project
from amqp_tasks.cli import ExitCode
from support import SECRET, Vhost


def assert_one_line(done: Done, code: ExitCode, *words: str) -> None:
    """An error of one line, with these words, no traceback and nothing on stdout."""
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert [word for word in words if word not in lines[0]] == []
    assert done.out == ""


@pytest.mark.parametrize("command", [["worker"], ["queues"], ["topology", "show"], ["call", "x"]])
def test_an_app_that_does_not_exist(bare_project: Project, command: list[str]) -> None:
    assert_one_line(bare_project.run("-A", "nowhere", *command), ExitCode.USAGE, "nowhere", "-A")


def test_a_worker_without_an_app(bare_project: Project) -> None:
    assert_one_line(bare_project.run("worker"), ExitCode.USAGE, "-A", "AMQP_TASKS_APP", "pyproject.toml")


def test_an_import_error_inside_of_the_app_is_shown_with_its_place(bare_project: Project) -> None:
    bare_project.write("broken.py", "import nothing_of_that_name\n")

    done = bare_project.run("-A", "broken", "worker")

    assert_one_line(done, ExitCode.USAGE, "nothing_of_that_name", "broken.py", "line 1")


def test_an_error_inside_of_the_app_is_shown_with_its_place(bare_project: Project) -> None:
    bare_project.write("broken.py", "x = 1\ny = x / 0\n")

    done = bare_project.run("-A", "broken", "queues")

    assert_one_line(done, ExitCode.USAGE, "ZeroDivisionError", "broken.py", "line 2")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"proj.py": "import sys\nsys.exit(0)\n"}, "importing the app 'proj' exited: SystemExit(0)"),
        (
            {
                "proj.py": "from amqp_tasks import App\napp = App('proj', include=['jobs'])\n",
                "jobs.py": "\nexit('no')\n",
            },
            "importing a module with tasks exited: SystemExit('no')",
        ),
    ],
    ids=["app", "tasks"],
)
def test_a_module_that_exits_is_said_to_have_done_so(
    bare_project: Project, files: dict[str, str], what: str
) -> None:
    for name, text in files.items():
        bare_project.write(name, text)

    done = bare_project.run("-A", "proj", "worker")

    assert_one_line(done, ExitCode.USAGE, what, "line 2", '`if __name__ == "__main__":`')


@pytest.mark.parametrize(
    "start", ["app.start()", "import sys, amqp_tasks.cli\nsys.exit(amqp_tasks.cli.main(app=app))"]
)
def test_a_module_that_starts_the_command_line_by_itself_has_said_all(
    bare_project: Project, start: str
) -> None:
    bare_project.write(
        "proj.py", f"from amqp_tasks import App\napp = App('proj', broker='memory://')\n{start}\n"
    )

    done = bare_project.run("-A", "proj", "dlq", "show", "nosuchid")

    assert (done.code, done.err) == (ExitCode.FAILED, "not found: nosuchid\n")


def test_a_module_without_an_app(bare_project: Project) -> None:
    bare_project.write("empty.py", "")

    assert_one_line(bare_project.run("-A", "empty", "worker"), ExitCode.USAGE, "empty")


def test_a_pyproject_whose_table_is_no_table(bare_project: Project) -> None:
    bare_project.write("pyproject.toml", '[tool]\namqp-tasks = "tasks"\n')

    assert_one_line(
        bare_project.run("queues"), ExitCode.USAGE, "pyproject.toml", "[tool.amqp-tasks]", "app ="
    )


def test_an_unknown_setting_is_named_with_the_nearest_one(bare_project: Project) -> None:
    bare_project.write("proj.py", "from amqp_tasks import App\napp = App('proj')\n")
    bare_project.write("settings.py", "worker_prefetch_mulitplier = 4\n")

    done = bare_project.run("-A", "proj", "--config", "settings", "config", "show")

    assert_one_line(done, ExitCode.USAGE, "worker_prefetch_mulitplier", "worker_prefetch_multiplier")


def test_a_wrong_value_in_the_environment_is_named(project: Project) -> None:
    done = project.run("worker", AMQP_TASKS_WORKER_POOL="gevent")

    assert done.code == ExitCode.USAGE
    assert "worker_pool" in done.err
    assert "Traceback" not in done.err


def test_a_broker_that_is_not_there(project: Project) -> None:
    project.environment["AMQP_TASKS_BROKER_CONNECTION_TIMEOUT"] = "1"

    done = project.run("queues", AMQP_TASKS_BROKER_URL="amqp://guest:guest@127.0.0.1:1//")

    assert_one_line(done, ExitCode.BROKER, "127.0.0.1:1")


def test_a_wrong_password(project: Project, vhost: Vhost) -> None:
    done = project.run("queues", AMQP_TASKS_BROKER_URL=vhost.url_of("guest", SECRET))

    assert_one_line(done, ExitCode.BROKER, "guest")
    assert SECRET not in done.err


def test_a_virtual_host_without_permission(project: Project, vhost: Vhost) -> None:
    done = project.run("queues", AMQP_TASKS_BROKER_URL=vhost.limited_url(permitted=False))

    assert_one_line(done, ExitCode.BROKER, vhost.name)


def test_a_scheme_that_nobody_serves(project: Project) -> None:
    done = project.run("queues", AMQP_TASKS_BROKER_URL="redis://localhost")

    assert_one_line(done, ExitCode.USAGE, "redis", "amqp")


def test_a_call_to_an_exchange_that_routes_nowhere(project: Project) -> None:
    done = project.run(
        "call", "proj.add", "--args", "[1, 2]", "--exchange", "amq.direct", "--routing-key", "nobody"
    )

    assert_one_line(done, ExitCode.NOT_SENT, "amq.direct", "nobody")


def test_an_unknown_queue_of_a_worker_when_none_may_be_made(project: Project) -> None:
    done = project.run("worker", "-Q", "nobodys", AMQP_TASKS_TASK_CREATE_MISSING_QUEUES="false")

    assert done.code == ExitCode.USAGE, done.err
    assert "nobodys" in done.err
    assert "Traceback" not in done.err


def test_a_queue_declared_otherwise(project: Project) -> None:
    project.run("topology", "apply")

    done = project.run("worker", AMQP_TASKS_TASK_DELIVERY_LIMIT="7")

    assert done.code == ExitCode.USAGE, done.err
    assert "x-delivery-limit" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["queues"],
        ["purge", "--yes", "-Q"],
        ["pause"],
        ["dlq", "list", "-Q"],
        ["topology", "migrate"],
        ["call", "proj.add", "--queue"],
        ["worker", "-n"],
    ],
)
def test_a_name_that_is_not_utf_8(project: Project, command: list[str]) -> None:
    assert_one_line(project.run(*command, "q\udcff"), ExitCode.USAGE, "q\\udcff", "UTF-8")


def test_a_queue_name_that_is_too_long(project: Project) -> None:
    assert_one_line(project.run("queues", "q" * 256), ExitCode.USAGE, "longer than 255 bytes")


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["config", "show"],
        ["queues", "--json"],
        ["completion", "bash"],
        ["-b", "memory://", "demo", "--path", "."],
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_is_full(project: Project, command: list[str], unbuffered: str) -> None:
    project.environment["PYTHONUNBUFFERED"] = unbuffered
    with Path("/dev/full").open("wb") as full:
        done = project.run_writing_to(*command, stdout=full)

    assert_one_line(done, ExitCode.FAILED, "cannot write the output: No space left on device")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stderr_that_is_full(project: Project, unbuffered: str) -> None:
    project.environment["PYTHONUNBUFFERED"] = unbuffered
    with Path("/dev/full").open("wb") as full:
        done = project.run_writing_to("nonsense", stderr=full)

    assert done.code == ExitCode.USAGE
