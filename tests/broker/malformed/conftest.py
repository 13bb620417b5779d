"""One worker per module, and what everybody with access to the broker can put before it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from support import BrokerNode, Ledger, RawClient, Vhost, WorkerProcess, eventually, new_vhost
from support.hostile import JSON, MAX_MESSAGE, good_headers
from support.worker_app import QUEUE
from support.workers import TESTS


@pytest.fixture(scope="module")
def vhost(broker: BrokerNode) -> Iterator[Vhost]:
    """One virtual host for the module, as its worker lives as long."""
    with new_vhost(broker.url, broker.management) as made:
        yield made


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """What ran."""
    return Ledger(tmp_path_factory.mktemp("malformed") / "ledger")


@pytest.fixture(scope="module")
def pool() -> str:
    """The worker's pool; a module may choose others."""
    return "prefork"


@pytest.fixture(scope="module")
def worker(vhost: Vhost, ledger: Ledger, pool: str) -> Iterator[WorkerProcess]:
    """A worker as users run it; at the end it must stop warm, with 0, with the same processes as at the beginning."""
    env = os.environ | {
        "AMQP_TASKS_BROKER_URL": vhost.url,
        "AMQP_TASKS_TEST_LEDGER": str(ledger.path),
        "AMQP_TASKS_MAX_MESSAGE_BYTES": str(MAX_MESSAGE),
        "PYTHONPATH": str(TESTS),
    }
    command = [
        sys.executable,
        "-m",
        "amqp_tasks",
        "-A",
        "support.worker_app:app",
        "worker",
        "-c",
        "1",
        "-P",
        pool,
    ]
    made = WorkerProcess(command, env=env, cwd=ledger.path.parent)
    try:
        made.wait_output(r"\bready\b")
        processes = sorted(made.children())
        yield made
        assert sorted(made.children()) == processes, made.output
        assert made.stop() == 0, made.output
        # The net under everything caught nothing: each kind has a reason of its own.
        assert "unexpected error" not in made.output
    finally:
        made.close()


@pytest.fixture
def raw_client(vhost: Vhost) -> Iterator[RawClient]:
    """An independent client."""
    with RawClient(vhost.url) as client:
        yield client


_NUMBERS = count()


@pytest.fixture
def neighbours(worker: WorkerProcess, ledger: Ledger, raw_client: RawClient) -> Iterator[Callable[[], None]]:
    """Send a good task; at the end all that were sent have run, once each, and both queues are empty."""
    sent: list[str] = []

    def send() -> None:
        key = f"neighbour-{next(_NUMBERS)}"
        sent.append(key)
        raw_client.publish(QUEUE, b'[["%s"], {}, {}]' % key.encode(), good_headers(key), **JSON)

    yield send
    for key in sent:
        assert len(ledger.wait_for("done", key)) == 1
    assert worker.process.poll() is None
    eventually(lambda: raw_client.depth(QUEUE) == 0)
    assert raw_client.drain(f"{QUEUE}.dead") == []
