"""Signatures as values: through JSON to another process, and as arguments of tasks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from amqp_tasks import App, group
from support import Ledger, Vhost, WorkerProcesses
from support.workflow_app import add, calling, seen, step

APP = "support.workflow_app:app"

RUN = """
import json, sys
from amqp_tasks import App, signature

url, text = sys.argv[1:]
with App("other", broker=url, task_default_queue="work") as app:
    print(json.dumps(app.signature(json.loads(text)).delay().get(timeout=20)))
"""


@pytest.mark.usefixtures("ledger")
def test_a_workflow_that_was_written_as_json_is_run_by_a_process_without_its_code(
    vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)
    workflow = add.s(1, 1) | group(step.s(number) for number in (1, 2, 3)) | step.s(100)

    ran = subprocess.run(
        [sys.executable, "-c", RUN, vhost.url, json.dumps(workflow)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == 100 + (2 + 1) + (2 + 2) + (2 + 3)


def test_a_signature_is_an_argument_of_a_task_that_calls_it(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    calling.delay(seen.s("by the task"), "called").get(timeout=10)
    caller.send_task("calling", (add.s(1, 2) | seen.s("a chain"),)).get(timeout=10)

    ledger.wait_for("seen", "by the task called")
    ledger.wait_for("seen", "a chain 3")
