"""What the log of a worker says of its tasks, and who decides how it looks."""

from __future__ import annotations

import re

import pytest

from acceptance.project import Project
from support import WorkerProcess, WorkerProcesses

APP = """
    import logging
    import sys

    from amqp_tasks import App

    app = App("logged", task_default_queue="logged")
    logger = logging.getLogger("logged.own")


    @app.task(name="加", resultrepr_maxsize=40)
    def repeat(text: str, times: int) -> str:
        logger.info("own line")
        print("printed")
        print("printed to stderr", file=sys.stderr)
        return text * times


    @app.task(name="refuse", throws=(LookupError,))
    def refuse(expected: bool) -> None:
        raise LookupError("nothing there") if expected else ValueError("unexpected\\nsecond line")
"""


@pytest.fixture
def logged(project: Project) -> Project:
    """A project whose tasks log, print and fail."""
    project.write("logged.py", APP)
    project.environment["AMQP_TASKS_APP"] = "logged"
    return project


def start(worker_process: WorkerProcesses, *arguments: str, **environment: str) -> WorkerProcess:
    """A worker that logs with the settings of the environment."""
    return worker_process("-c", "1", *arguments, app="logged", env=environment)


def test_a_task_is_a_line_when_it_is_received_and_one_when_it_has_ended(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    worker = start(worker_process)

    called = logged.run("call", "加", "--args", '["张三", 2]', "--task-id", "小家伙", "--wait")

    assert called.code == 0, called.err
    assert worker.wait_output(r"Task 加\[小家伙\] received")
    assert re.search(
        r" INFO/.* Task 加\[小家伙\] succeeded in \d+\.\d+s: '张三张三'$", worker.wait_output("succeeded")
    )


def test_a_long_result_is_cut_in_the_log_and_not_in_the_result(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    worker = start(worker_process)

    called = logged.run("call", "加", "--args", '["x", 500]', "--wait")

    assert called.data == "x" * 500
    assert len(worker.wait_output("succeeded").split("s: ")[-1]) <= 40


def test_a_task_is_logged_under_the_name_that_its_call_gives_it(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    logged.write(
        "shadow.py",
        "from logged import app\n"
        "print(app.send_task('加', ('a', 1), shadow='nightly').get(timeout=20))\n"
        "print(app.send_task('nightly').get(timeout=20, propagate=False))\n",
    )
    worker = start(worker_process)

    done = logged.run_python("shadow.py")

    # A name for people alone: no task is found by it.
    assert done.out.splitlines()[0] == "a", done.err
    assert "nightly" in done.out.splitlines()[1]
    assert worker.wait_output(r"Task nightly\[.*\] succeeded")
    assert worker.wait_output(r"unknown")


def test_an_unexpected_error_is_an_error_with_its_traceback_and_an_expected_one_a_line(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    worker = start(worker_process)

    logged.run("call", "refuse", "--args", "[true]", "--wait")
    logged.run("call", "refuse", "--args", "[false]", "--wait")

    assert " INFO/" in worker.wait_output(r"raised expected: LookupError\(nothing there\)")
    assert " ERROR/" in worker.wait_output("raised unexpected: ValueError")
    assert worker.wait_output("in refuse")
    assert worker.output.count("Traceback (most recent call last)") == 1


def test_lines_look_as_the_settings_say(logged: Project, worker_process: WorkerProcesses) -> None:
    worker = start(
        worker_process,
        AMQP_TASKS_WORKER_LOG_FORMAT="plain|%(levelname)s|%(message)s",
        AMQP_TASKS_WORKER_TASK_LOG_FORMAT="task|%(task_name)s|%(task_id)s|%(message)s",
        AMQP_TASKS_WORKER_LOG_COLOR="true",
    )

    logged.run("call", "加", "--args", '["a", 1]', "--task-id", "t-1", "--wait")
    logged.run("call", "refuse", "--args", "[false]", "--wait")

    assert worker.wait_output(r"^task\|加\|t-1\|own line$")
    assert worker.wait_output(r"^plain\|INFO\|Task 加\[t-1\] succeeded")
    assert worker.wait_output(r"^\x1b\[31mplain\|ERROR\|Task refuse")


def test_what_tasks_print_is_logged_at_the_level_that_is_set(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    worker = start(worker_process, AMQP_TASKS_WORKER_REDIRECT_STDOUTS_LEVEL="error")

    logged.run("call", "加", "--args", '["a", 1]', "--wait")

    assert " ERROR/" in worker.wait_output("printed$")
    assert " ERROR/" in worker.wait_output("printed to stderr$")


def test_what_tasks_print_may_be_left_as_it_is(logged: Project, worker_process: WorkerProcesses) -> None:
    worker = start(worker_process, AMQP_TASKS_WORKER_REDIRECT_STDOUTS="false", PYTHONUNBUFFERED="1")

    logged.run("call", "加", "--args", '["a", 1]', "--wait")

    assert worker.wait_output("^printed$")
    assert worker.wait_output("^printed to stderr$")


@pytest.mark.parametrize(
    ("hijacks", "form"), [("false", "^own-form:Task 加"), ("true", r"^\[.* INFO/.*\] Task 加")]
)
def test_an_apps_own_logging_is_kept_unless_the_worker_may_take_it(
    logged: Project, worker_process: WorkerProcesses, hijacks: str, form: str
) -> None:
    own = "import logging\nlogging.basicConfig(format='own-form:%(message)s', level='INFO')\n"
    path = logged.path / "logged.py"
    path.write_text(own + path.read_text())

    worker = start(worker_process, AMQP_TASKS_WORKER_HIJACK_ROOT_LOGGER=hijacks)
    logged.run("call", "加", "--args", '["a", 1]', "--wait")

    assert worker.wait_output(form + ".*succeeded")
    assert ("own-form:" in worker.output) is (hijacks == "false")


def test_a_terminal_that_knows_few_characters_stops_neither_worker_nor_command(
    logged: Project, worker_process: WorkerProcesses
) -> None:
    worker = start(worker_process, PYTHONIOENCODING="ascii")

    called = logged.run("call", "加", "--args", '["张", 1]', "--wait", PYTHONIOENCODING="latin-1")
    explained = logged.run("topology", "explain", "加", PYTHONIOENCODING="latin-1")

    assert r"- \u52a0" in worker.output
    assert (called.code, called.data) == (0, "张")
    assert explained.code == 0
    assert r"\u52a0" in explained.out
