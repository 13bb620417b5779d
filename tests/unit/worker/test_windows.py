"""A system without fork, as far as one can be played on this one: Windows is in no test of ours."""

from __future__ import annotations

import subprocess
import sys

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
app.start(["worker", *sys.argv[1:]])
"""


def test_row_u065_tasks_can_be_called_without_fork_and_a_worker_says_in_one_line_where_it_can_run() -> None:
    for options in ([], ["-P", "prefork"], ["-P", "threads"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_FORK, *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.stdout == "sent True\n", done.stderr
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert "workers cannot run on Windows" in line
        assert "in WSL or in a container" in line
