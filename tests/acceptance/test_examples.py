"""The programs in docs/examples run and print what the pages lead readers to expect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import Vhost, WorkerProcesses

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

OUTPUT = {
    "hello": "Hello, World!\n4\n",
    "bulk": f"{sum(number * number for number in range(1000))}\n",
    "errors": "the task raised: division by zero\nrefused before it was sent\n",
}
QUEUES = {"hello": "hipri,lopri", "bulk": "lopri", "errors": "default"}


def test_every_example_is_known_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(OUTPUT)


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_runs_and_prints_what_it_should(
    name: str, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    worker_process(
        "-Q", QUEUES[name], "-c", "1", app="tasks", cwd=EXAMPLES / name, env={"PYTHONDONTWRITEBYTECODE": "1"}
    )

    called = subprocess.run(
        [sys.executable, "call.py"],
        cwd=EXAMPLES / name,
        env=os.environ | {"AMQP_TASKS_BROKER_URL": vhost.url, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert (called.stdout, called.stderr) == (OUTPUT[name], "")
