"""The stack in compose/ comes up, works, and goes away. Run with `-m compose`, where docker-compose answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import eventually

FILE = Path(__file__).parents[2] / "compose" / "docker-compose.yml"
UP = 420.0

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


class Stack:
    """One project of docker-compose, with a name and ports of its own."""

    def __init__(self) -> None:
        found = shutil.which("docker-compose")
        command = [found] if found else ["docker", "compose"]
        self._command = [*command, "-f", str(FILE), "-p", f"amqp-tasks-{uuid.uuid4().hex[:8]}"]

    def run(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run docker-compose; returns its output, both streams.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [*self._command, *arguments],
            # Port 0 lets Docker choose, so that nothing on this machine is in the way.
            env=os.environ | {"AMQP_PORT": "0", "MANAGEMENT_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def health(self, *services: str) -> set[str]:
        """What Docker says of the health of the containers of those services."""
        found = self.run("ps", "--quiet", *services).split()
        command = ["docker", "inspect", "--format", "{{.State.Health.Status}}", *found]
        return set(subprocess.check_output(command, text=True, timeout=60).split())

    def exit_codes(self, *services: str) -> list[int]:
        """Of the containers of those services, which have ended."""
        found = self.run("ps", "--all", "--quiet", *services).split()
        command = ["docker", "inspect", "--format", "{{.State.ExitCode}}", *found]
        return [int(code) for code in subprocess.check_output(command, text=True, timeout=60).split()]


@pytest.fixture
def stack() -> Iterator[Stack]:
    """The stack, up; taken down with its volume at the end."""
    made = Stack()
    try:
        made.run("up", "--build", "--detach", timeout=UP)
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "40")


def test_the_stack_serves_tasks_on_both_queues_and_stops_warm(stack: Stack) -> None:
    printed = stack.run("run", "--rm", "-T", "client")

    assert "Hello, compose!" in printed
    assert "20 digests from lopri" in printed
    eventually(lambda: stack.health("hipri", "lopri") == {"healthy"}, within=40)

    stack.run("stop", "--timeout", "40", "hipri", "lopri")
    assert stack.exit_codes("hipri", "lopri") == [0, 0], stack.run("logs")
