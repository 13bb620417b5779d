"""Mistakes in calls: on the command line one line and an exit code, in Python a named error, before anything is lost."""

from __future__ import annotations

import pytest

from acceptance.project import Done, Project
from amqp_tasks.cli import ExitCode
from support import SECRET, RawClient, Vhost

CALL = ("call", "proj.add", "--args", "[1, 2]")


def assert_refused(done: Done, code: int, *words: str) -> None:
    """One line with these words, nothing on stdout, no password."""
    assert done.code == code, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    assert [word for word in words if word not in done.err] == []
    assert done.out == ""
    assert SECRET not in done.err


@pytest.mark.parametrize("command", [CALL, (*CALL, "--wait")], ids=["call", "wait"])
def test_nobody_listens(bare_project: Project, command: tuple[str, ...]) -> None:
    done = bare_project.run(
        *command,
        AMQP_TASKS_BROKER_URL=f"amqp://guest:{SECRET}@127.0.0.1:1//",
        AMQP_TASKS_TASK_PUBLISH_TIMEOUT="1",
    )

    assert_refused(done, ExitCode.BROKER, "127.0.0.1:1", "broker_url")


def test_the_password_is_wrong(project: Project, vhost: Vhost) -> None:
    done = project.run(*CALL, AMQP_TASKS_BROKER_URL=vhost.url_of("guest", SECRET))

    assert_refused(done, ExitCode.BROKER, "'guest'", "password", "broker_url")


def test_the_virtual_host_does_not_exist(project: Project, vhost: Vhost) -> None:
    done = project.run(*CALL, AMQP_TASKS_BROKER_URL=vhost.url + "-not")

    assert_refused(done, ExitCode.BROKER, f"{vhost.name}-not", "set_permissions")


def test_the_virtual_host_is_forbidden(project: Project, vhost: Vhost) -> None:
    done = project.run(*CALL, AMQP_TASKS_BROKER_URL=vhost.limited_url(permitted=False))

    assert_refused(done, ExitCode.BROKER, vhost.name, "set_permissions")


def test_the_user_may_not_write(project: Project, vhost: Vhost) -> None:
    project.run("topology", "apply")

    done = project.run(*CALL, AMQP_TASKS_BROKER_URL=vhost.limited_url(read=".*"))

    assert done.code in (ExitCode.BROKER, ExitCode.NOT_SENT)
    assert_refused(done, done.code, "403")


def test_the_queue_was_declared_otherwise(project: Project, raw_client: RawClient) -> None:
    raw_client.declare("hipri")

    done = project.run(*CALL)

    assert done.code == ExitCode.USAGE
    missing = [word for word in ("hipri", "x-queue-type", "quorum", "delete it") if word not in done.err]
    assert missing == [], done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("[1]", ("proj.add", "'y'", "(x: int, y: int)")),
        ("[1, 2, 3]", ("proj.add", "too many")),
        ('["one", 2]', ("proj.add", "'x'", "int")),
        ("[1, null]", ("proj.add", "'y'", "int")),
        ("[1, 2", ("--args", "JSON")),
        ('{"x": 1}', ("--args", "list")),
    ],
)
def test_the_arguments_do_not_fit(project: Project, arguments: str, words: tuple[str, ...]) -> None:
    assert_refused(project.run("call", "proj.add", "--args", arguments), ExitCode.USAGE, *words)


def test_the_body_is_too_large(project: Project) -> None:
    done = project.run(
        "call", "elsewhere", "--args", f'["{"x" * 2000}"]', AMQP_TASKS_MAX_MESSAGE_BYTES="1000",
        AMQP_TASKS_WARN_MESSAGE_BYTES="1000",
    )  # fmt: skip

    assert_refused(done, ExitCode.NOT_SENT, "1000", "max_message_bytes")


def test_the_queue_is_unknown_and_none_may_be_made(project: Project) -> None:
    done = project.run(*CALL, "--queue", "defautl", AMQP_TASKS_TASK_CREATE_MISSING_QUEUES="false")

    assert_refused(done, ExitCode.USAGE, "'defautl'", "did you mean 'default'?")


def test_the_serializer_is_unknown(project: Project) -> None:
    done = project.run(*CALL, "--serializer", "pickel")

    assert done.code == ExitCode.USAGE
    assert_refused(done, ExitCode.USAGE, "pickel")


PYTHON = """
import socket
from amqp_tasks import App
from proj import add, app

def tell(call):
    try:
        print("no error", call())
    except Exception as exc:
        kinds = [kind.__name__ for kind in type(exc).__mro__]
        print(f"{'/'.join(kinds)}: {exc}")

with socket.socket() as sock:
    tell(lambda: app.send_task("t", ({"deep": [1, {"x": sock}]},)))
tell(lambda: app.send_task("t", (), {"when": {1, 2}}))
tell(lambda: add.delay(1))
tell(lambda: add.delay("one", 2))
tell(lambda: app.send_task("t", ("x" * 20_000_000,)))
tell(lambda: app.send_task("t", exchange="amq.direct", routing_key="nobody"))
tell(lambda: app.conf.update(worker_concurency=2) or app.settings)
app.close()
"""


def test_each_mistake_in_python_is_an_error_of_its_own_at_the_caller(project: Project) -> None:
    project.write("mistakes.py", PYTHON)

    done = project.run_python("mistakes.py")

    lines = done.out.splitlines()
    assert "Traceback" not in done.err
    assert [line.split("/")[0] for line in lines] == [
        "EncodeError",
        "EncodeError",
        "InvalidArguments",
        "InvalidArguments",
        "MessageTooLarge",
        "UnroutableError",
        "SettingsError",
    ]
    assert "args[0]['deep'][1]['x']: socket.socket" in lines[0]
    assert "kwargs['when']: set" in lines[1]
    assert "'y'" in lines[2]
    assert "'x'" in lines[3]
    assert "max_message_bytes" in lines[4]
    assert all(word in lines[5] for word in ("amq.direct", "nobody"))
    assert "worker_concurrency" in lines[6]
    assert all("TypeError" in line for line in lines[:4])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("password", ("'guest'", "broker_url")),
        ("missing", ("does not exist",)),
        ("forbidden", ("set_permissions",)),
    ],
)
def test_a_worker_that_can_never_connect_ends_with_the_reason(
    project: Project, vhost: Vhost, case: str, words: tuple[str, ...]
) -> None:
    url = {
        "password": lambda: vhost.url_of("guest", SECRET),
        "missing": lambda: vhost.url + "-not",
        "forbidden": lambda: vhost.limited_url(permitted=False),
    }[case]()

    done = project.run("worker", "-c", "1", AMQP_TASKS_BROKER_URL=url)

    assert done.code == ExitCode.BROKER, done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words)
    assert "Traceback" not in done.err
    assert SECRET not in done.err + done.out


def test_a_worker_may_be_told_not_to_wait_for_its_broker(project: Project) -> None:
    done = project.run(
        "worker",
        AMQP_TASKS_BROKER_URL=f"amqp://guest:{SECRET}@127.0.0.1:1//",
        AMQP_TASKS_BROKER_CONNECTION_RETRY_ON_STARTUP="false",
    )

    assert done.code == ExitCode.BROKER
    assert "127.0.0.1:1" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert SECRET not in done.err


def test_a_worker_whose_included_module_fails_shows_the_error_inside(project: Project) -> None:
    project.write("more_tasks.py", "import json\n\nimport not_installed_anywhere\n")

    done = project.run("worker", "-I", "more_tasks")

    assert_refused(done, ExitCode.USAGE, "not_installed_anywhere", "more_tasks.py", "line 3")


def test_a_misspelt_queue_of_a_worker_is_answered_with_the_nearest(project: Project) -> None:
    done = project.run("worker", "-Q", "hiprio", AMQP_TASKS_TASK_QUEUES="hipri,lopri",
                       AMQP_TASKS_TASK_CREATE_MISSING_QUEUES="false")  # fmt: skip

    assert done.code == ExitCode.USAGE
    assert "did you mean 'hipri'?" in done.err.splitlines()[-1]
