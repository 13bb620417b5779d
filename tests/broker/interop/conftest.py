"""Stock Celery beside us on one virtual host per module; each worker is started once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks import App
from support import BrokerNode, Ledger, RawClient, Vhost, WorkerProcess, new_vhost
from support.connected import connect
from support.interop_app import SETTINGS
from support.stock_client import StockClient
from support.workers import TESTS, running


@pytest.fixture(scope="module")
def vhost(broker: BrokerNode) -> Iterator[Vhost]:
    """One virtual host for the module, as its workers live as long."""
    with new_vhost(broker.url, broker.management) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers run."""
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="module")
def ledger(folder: Path) -> Ledger:
    """What really ran, whoever ran it."""
    return Ledger(folder / "ledger")


@pytest.fixture(scope="module")
def environment(vhost: Vhost, ledger: Ledger) -> dict[str, str]:
    """How all processes find the broker and the ledger."""
    return {
        "AMQP_TASKS_BROKER_URL": vhost.url,
        "AMQP_TASKS_TEST_LEDGER": str(ledger.path),
        "PYTHONPATH": str(TESTS),
    }


@pytest.fixture(scope="module")
def our_worker(environment: dict[str, str], folder: Path) -> Iterator[WorkerProcess]:
    """`amqp-tasks worker`, one slot that holds several messages."""
    command = [sys.executable, "-m", "amqp_tasks", "-A", "support.interop_app:app", "worker"]
    command += ["-c", "1", "--prefetch-multiplier", "4"]
    with running(command, environment, folder, r"\bready\b") as worker:
        yield worker


@pytest.fixture(scope="module")
def stock_worker(environment: dict[str, str], folder: Path) -> Iterator[WorkerProcess]:
    """`celery worker` as it comes from PyPI, one process."""
    command = [sys.executable, "-m", "celery", "-A", "stock.app", "worker", "-c", "1", "-l", "info"]
    with running(command, environment, folder, r"\bready\.") as worker:
        yield worker


@pytest.fixture(scope="module")
def stock_client(environment: dict[str, str]) -> Iterator[StockClient]:
    """A stock client in a process of its own."""
    with StockClient(environment) as client:
        yield client


@pytest.fixture(scope="module")
def our_client(vhost: Vhost) -> Iterator[App]:
    """Our client, connected before the first test so that no test leaves its threads behind."""
    app = App("client", broker=vhost.url, **SETTINGS)
    connect(app)
    yield app
    app.close()


@pytest.fixture
def raw_client(vhost: Vhost) -> Iterator[RawClient]:
    """An independent client."""
    with RawClient(vhost.url) as client:
        yield client
