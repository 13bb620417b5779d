"""No password on any output or command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from acceptance.project import Project
from amqp_tasks.cli._exit import ExitCode
from amqp_tasks.cli._main import root
from support import SECRET, Vhost, WorkerProcesses, eventually

COMMANDS = [
    ["queues"],
    ["queues", "--json"],
    ["topology", "show"],
    ["topology", "check"],
    ["topology", "apply"],
    ["check", "--as", "producer"],
    ["check", "--as", "worker", "--json"],
    ["topology", "graph"],
    ["topology", "explain", "proj.add"],
    ["call", "proj.add", "--args", "[1, 2]"],
    ["result", "some-id"],
    ["topology", "migrate", "hipri"],
    ["purge", "--yes"],
    ["delayed"],
    ["pause", "hipri"],
    ["resume", "hipri"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "requeue"],
    ["dlq", "purge", "--yes"],
    ["revoke", "some-id"],
    ["unrevoke", "some-id"],
    ["account"],
    ["workflow", "list"],
    ["workflow", "show", "some-id"],
    ["workflow", "resume", "some-id"],
    ["workflow", "discard", "some-id", "--yes"],
    ["config", "show"],
    ["config", "show", "--json"],
    ["health", "no-such-file"],
    ["report", "--timeout", "1"],
    ["report", "--timeout", "1", "--json"],
    ["worker", "-Q", "hipri", "-P", "nonsense"],
]


@pytest.fixture
def secret_url(vhost: Vhost) -> str:
    """A user who may do anything in the virtual host, with the canary as password."""
    return vhost.limited_url(configure=".*", write=".*", read=".*")


NO_BROKER = {"demo", "completion"}
"""These talk to no broker that is named to them."""


def _paths(context: click.Context, group: click.Group) -> Iterator[str]:
    """All commands, by their words."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {rest}" for rest in _paths(context, command))
        else:
            yield name


def test_every_command_is_tried() -> None:
    tried = {" ".join(command) for command in COMMANDS}

    missing = {
        path
        for path in _paths(click.Context(root), root)
        if not any(f"{each} ".startswith(f"{path} ") for each in tried)
    }

    assert missing == NO_BROKER


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_the_password(project: Project, secret_url: str, command: list[str]) -> None:
    assert SECRET in secret_url
    project.environment["AMQP_TASKS_SECURITY_SIGNING_KEYS"] = f"key:{SECRET * 3}"

    worked = project.run(*command, "--traceback", AMQP_TASKS_BROKER_URL=secret_url)
    failed = project.run(
        *command,
        "--traceback",
        AMQP_TASKS_BROKER_URL=f"amqp://user:{SECRET}@127.0.0.1:1/x",
        AMQP_TASKS_TASK_PUBLISH_TIMEOUT="1",
        AMQP_TASKS_BROKER_CONNECTION_TIMEOUT="1",
    )
    malformed = project.run(
        *command, "--traceback", AMQP_TASKS_BROKER_URL=f"amqp://user:{SECRET}@host:notaport/x"
    )
    by_option = project.run(*command, "--traceback", "-b", secret_url)

    for done in (worked, failed, malformed, by_option):
        assert SECRET not in done.out + done.err


MANAGEMENT_COMMANDS = [["account"], ["topology", "migrate", "hipri"]]


@pytest.mark.parametrize("command", MANAGEMENT_COMMANDS, ids=" ".join)
@pytest.mark.parametrize("place", [f"{SECRET}/x@127.0.0.1:15672", f"{SECRET}@127.0.0.1:156720"])
def test_no_command_prints_the_password_of_a_malformed_management_url(
    project: Project, command: list[str], place: str
) -> None:
    done = project.run(*command, AMQP_TASKS_MANAGEMENT_URL=f"http://user:{place}")

    assert done.code == ExitCode.USAGE
    assert done.err.count("\n") == 1
    assert SECRET not in done.out + done.err


CONFIG_COMMANDS = [
    ["config", "show", "--changed"],
    ["config", "show", "--json"],
    ["report", "--timeout", "1"],
    ["worker", "-Q", "hipri"],
]


@pytest.mark.parametrize("command", CONFIG_COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", ["AMQP_TASKS_TASK_IDEMPOTENCY_STORE", "AMQP_TASKS_RESULT_BACKEND"])
def test_no_command_prints_the_password_of_a_store_whose_url_has_a_slash_too_few(
    project: Project, command: list[str], name: str
) -> None:
    project.environment[name] = f"redis:/:{SECRET}@host/0"

    done = project.run(*command)

    assert done.code == ExitCode.USAGE
    assert "expected scheme://user:password@host:port/db" in done.err
    assert SECRET not in done.out + done.err


WORKFLOWS = """
    from amqp_tasks import App

    app = App("proj", task_ignore_result=True, task_default_queue="hipri")

    @app.task(sensitive=("password",))
    def login(user: str, password: str) -> None: ...

    @app.task(sensitive=("password",))
    def refuse(user: str, password: str) -> None:
        raise ValueError("no")

    @app.task
    def boom() -> None:
        raise ValueError("no")
"""
SEND = f"""
    from amqp_tasks import Workflow, chain
    from proj import app, boom, login, refuse

    items = [("bob", "{SECRET}")]
    call = login.si(*items[0])
    %s
    app.close()
"""


SENT = {
    "rest of a chain": "chain(boom.si(), call).apply_async()",
    "callback": "boom.apply_async(link=call)",
    "errback": "boom.apply_async(link_error=call)",
    "items of one message": "refuse.starmap(items).apply_async()",
    "items of several": "refuse.chunks(items, 1).apply_async()",
    "items that follow": "chain(boom.si(), refuse.starmap(items)).apply_async()",
    "step of a workflow": "Workflow().step('a', boom.si()).step('b', call, after=['a']).delay()",
}
SHOWING = [
    ["dlq", "list", "--json"],
    ["dlq", "show", "--limit", "100"],
    ["dlq", "show", "--limit", "100", "--json"],
    ["workflow", "list", "--json"],
]


@pytest.mark.parametrize("statement", SENT.values(), ids=SENT)
def test_dead_letters_show_no_sensitive_argument_of_what_hangs_on_them(
    project: Project, worker_process: WorkerProcesses, statement: str
) -> None:
    project.write("proj.py", WORKFLOWS)
    project.write("send.py", SEND % statement)
    sent = project.run_python("send.py")
    worker = worker_process("-c", "1", "-l", "debug", app="proj", env=project.environment, cwd=project.path)
    eventually(lambda: len(project.run("dlq", "list", "--json").data) == 1, within=20)

    shown = [project.run(*command) for command in SHOWING]

    assert [done.code for done in (sent, *shown)] == [ExitCode.OK] * 5, sent.err
    assert "not shown, as it holds sensitive arguments" in shown[1].out
    assert SECRET not in "".join(done.out + done.err for done in shown) + worker.output


def test_neither_the_log_nor_the_process_list_shows_a_workers_password(
    project: Project, secret_url: str, worker_process: WorkerProcesses
) -> None:
    url = {"AMQP_TASKS_BROKER_URL": secret_url, "AMQP_TASKS_SECURITY_SIGNING_KEYS": f"key:{SECRET * 3}"}
    project.environment |= url
    worker = worker_process("-Q", "hipri,lopri", "-c", "2", "-l", "debug", app="proj", env=url)
    project.run("call", "proj.fail", "--args", '["x"]', "--wait")

    family = [worker.pid, *worker.children()]
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family]

    assert len(family) >= 3
    assert not any(SECRET.encode() in line for line in shown)
    assert SECRET not in worker.output
    assert "ready" in worker.output
