"""Tasks with a delay: not early, not in the worker, not lost."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from amqp_tasks import App
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
TOLERANCE = 0.05
"""Seconds by which nothing may be early."""
pytestmark = pytest.mark.usefixtures("ledger")


def test_a_delayed_task_runs_when_it_is_due_and_the_worker_does_not_hold_it_before(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Rows U016, U017, U018."""
    worker = worker_process("-c", "1", app=APP)
    far = client.act("far", countdown=3600.7)
    began = time.time()
    eta = datetime.now(UTC) + timedelta(seconds=1.3)

    late = [client.act("0.4", "time", countdown=0.4), client.act("1.7", "time", countdown=1.7)]
    later = client.act("1.3", "time", eta=eta)
    now = client.act("now").get(timeout=10)

    assert now == "now"
    waits = [result.get(timeout=10) - began for result in late]
    assert waits[0] >= 0.4 - TOLERANCE
    assert waits[1] >= 1.7 - TOLERANCE
    assert later.get(timeout=10) >= eta.timestamp() - TOLERANCE
    assert far.state == "PENDING"
    assert ledger.keys("start").count("far") == 0
    assert worker.stop() == 0
    # The worker has given back all it held.
    assert raw_client.depth(QUEUE) == 0


def test_a_delayed_task_outlives_the_workers(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Row B034."""
    first = worker_process("-c", "1", app=APP)
    sent = {f"key-{number}" for number in range(20)}
    for key in sorted(sent):
        client.act(key, countdown=1.5)

    first.kill_all()
    second = worker_process("-c", "2", app=APP)

    eventually(lambda: set(ledger.keys("done")) == sent, within=15)
    assert second.stop() == 0
    assert_conserved(sent, ledger, raw_client)


def test_when_app_and_worker_have_ended_only_the_wheel_that_was_used_is_left(vhost: Vhost) -> None:
    """Threads and sockets that are left fail any test; this looks at the broker."""
    with App("ending", broker=vhost.url, task_default_queue=QUEUE) as app:
        task = app.task(name="once", ignore_result=True)(lambda: None)
        worker = app.Worker()
        thread = threading.Thread(target=worker.start, name="worker-under-test")
        thread.start()
        assert worker.ready.wait(10)
        app.send_many((task, (), dict[str, object](), {"countdown": 0x21 + 0.5}) for _ in range(100))
        task.apply_async(countdown=2)
        assert worker.stop(timeout=5)
        thread.join(10)

    wheel = {f"amqp_tasks.delay.{each}" for each in ("1.2", "0.1", "0.2", "stray")}
    own = {QUEUE, f"{QUEUE}.dead", "amqp_tasks.journal", "amqp_tasks.account"}
    eventually(lambda: {queue["name"] for queue in vhost.queues()} == wheel | own, within=15)
    eventually(lambda: vhost.connections() == [], within=15)
