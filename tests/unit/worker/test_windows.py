"""A system without fork, as far as one can be played on this one: Windows is in no test of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._platform import check_platform

WITHOUT_FORK = """
import os, signal, sys
import kombu, pika, pydantic  # what they need of the system is theirs
for name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork"):
    delattr(os, name)

from amqp_tasks.app import App
from amqp_tasks.cli import main

app = App("calling", broker="memory://windows/")
print("sent", bool(app.send_task("task", task_id="one").id))
sys.platform = "win32"
app.start(sys.argv[1:])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_FORK, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("platform", ["linux", "darwin", "freebsd14"])
def test_workers_are_refused_on_no_other_system(platform: str) -> None:
    check_platform(platform)


def test_whatever_the_pool_a_worker_in_a_program_is_refused_on_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("amqp_tasks.worker.Worker", raising=False)
    monkeypatch.setattr("sys.platform", "win32")

    with (
        App("refused", broker="memory://windows-worker/") as app,
        pytest.raises(ConfigurationError, match="Windows"),
    ):
        app.Worker(pool="solo")


def test_row_u065_what_only_looks_needs_no_worker() -> None:
    done = run("queues", "--json")

    assert done.returncode == 0, done.stderr
    assert '"queue": "default"' in done.stdout


def test_row_u065_tasks_can_be_called_without_fork_and_a_worker_says_in_one_line_where_it_can_run() -> None:
    for options in ([], ["-P", "prefork"], ["-P", "threads"], ["--uid", "nobody"]):
        done = run("worker", *options)

        assert done.stdout == "sent True\n", done.stderr
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert "workers cannot run on Windows" in line
        assert "in WSL or in a container" in line
