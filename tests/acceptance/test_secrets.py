"""No password on any output or command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from acceptance.project import Project
from amqp_tasks.cli._main import root
from support import SECRET, Vhost, WorkerProcesses

COMMANDS = [
    ["queues"],
    ["queues", "--json"],
    ["topology", "show"],
    ["topology", "check"],
    ["topology", "apply"],
    ["topology", "graph"],
    ["topology", "explain", "proj.add"],
    ["call", "proj.add", "--args", "[1, 2]"],
    ["result", "some-id"],
    ["topology", "migrate", "hipri"],
    ["purge", "--yes"],
    ["pause", "hipri"],
    ["resume", "hipri"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "requeue"],
    ["dlq", "purge", "--yes"],
    ["revoke", "some-id"],
    ["unrevoke", "some-id"],
    ["config", "show"],
    ["config", "show", "--json"],
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


def test_neither_the_log_nor_the_process_list_shows_a_workers_password(
    project: Project, secret_url: str, worker_process: WorkerProcesses
) -> None:
    url = {"AMQP_TASKS_BROKER_URL": secret_url}
    worker = worker_process("-Q", "hipri,lopri", "-c", "2", "-l", "debug", app="proj", env=url)
    project.run("call", "proj.fail", "--args", '["x"]', "--wait")

    family = [worker.pid, *worker.children()]
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family]

    assert len(family) >= 3
    assert not any(SECRET.encode() in line for line in shown)
    assert SECRET not in worker.output
    assert "ready" in worker.output
