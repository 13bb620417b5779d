"""Fixtures for all tests; the tools behind them are in `support`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.brokers import BrokerNode, find_broker, start_node
from support.leaks import Footprint
from support.ledger import Ledger
from support.node_logs import errors_since
from support.nodes import Node
from support.private import PrivateNode, private_to_one_test
from support.proxy import TcpProxy
from support.raw import RawClient
from support.vhosts import Vhost, new_vhost
from support.workers import TESTS, WorkerProcesses

if TYPE_CHECKING:
    from support.worker_client import Holding, WorkerClient

_BEGAN = pytest.StashKey[datetime]()

# Its 200 ms for an example are passed on a busy machine, by whichever test has bad luck.
hypothesis.settings.register_profile("patient", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what its workers wrote, and what the nodes of the tests logged as errors since it began."""
    report = yield
    began = item.stash.setdefault(_BEGAN, datetime.fromtimestamp(call.start, UTC))
    if report.failed:
        workers = getattr(item, "funcargs", {}).get("worker_process")
        outputs = workers.outputs() if isinstance(workers, WorkerProcesses) else []
        report.sections.extend(("worker", output) for output in outputs)
        errors = {node.name: _errors(node, began) for node in Node.made}
        report.sections.extend(
            (f"errors in the log of {name}", text) for name, text in errors.items() if text
        )
    return report


def _errors(node: Node, since: datetime) -> str:
    try:
        return "\n".join(errors_since(node.log(), since))
    except Exception as exc:  # one failure must not end the run
        return f"cannot be read: {exc!r}"


@pytest.fixture(scope="session", autouse=True)
def _heed_hangups() -> None:
    """Let HUP mean what it means to a worker, in this process and those it starts: a run under nohup ignores it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves threads, child processes or sockets behind."""
    before = Footprint.now()
    yield
    leaked = before.leaked()
    assert not leaked, "left behind:\n" + "\n".join(leaked)


@pytest.fixture(scope="session")
def broker() -> Iterator[BrokerNode]:
    """The broker of this run, started when the first test needs it; without one the tests that do fail."""
    found = find_broker()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def vhost(broker: BrokerNode) -> Iterator[Vhost]:
    """A virtual host for this test alone, deleted after it."""
    with new_vhost(broker.url, broker.management) as made:
        yield made


@pytest.fixture
def raw_client(vhost: Vhost) -> Iterator[RawClient]:
    """An independent client in the test's virtual host."""
    with RawClient(vhost.url) as client:
        yield client


@pytest.fixture
def client(vhost: Vhost) -> Iterator[WorkerClient]:
    """Calls tasks in the test's virtual host; for workers of `support.worker_app`."""
    from support.worker_client import WorkerClient

    with WorkerClient(vhost.url) as made:
        yield made


@pytest.fixture
def hold(client: WorkerClient, ledger: Ledger, tmp_path: Path) -> Holding:
    """Calls tasks that run until `hold.release()`."""
    from support.worker_client import Holding

    return Holding(client, ledger, tmp_path / "gate")


@pytest.fixture
def proxy(vhost: Vhost) -> Iterator[TcpProxy]:
    """A faulty proxy before the broker: `proxy.url_for()` is the test's virtual host through it."""
    with TcpProxy(vhost.url) as made:
        yield made


@pytest.fixture(scope="session")
def _breakable_node() -> Iterator[Node]:
    # The same kind as the main broker would be: a given one says nothing, then what is installed starts quicker.
    given = "AMQP_TASKS_TEST_BROKER_URL" in os.environ
    node = start_node(prefer="installed" if given else "container")
    try:
        yield node
    finally:
        node.remove()


@pytest.fixture
def private_node(_breakable_node: Node) -> Iterator[PrivateNode]:
    """A node that the test may stop, kill, pause and restart; `.url` is a virtual host of its own."""
    with private_to_one_test(_breakable_node) as node:
        yield node


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A file to which the scripted tasks report."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def worker_process(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WorkerProcesses]:
    """Start workers as processes, in the test's folder; see `WorkerProcesses.__call__`.

    When the test uses `vhost`, `private_node` or `ledger` as well, the workers get them by their environment.
    """
    env = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    for name, variable, value_of in _HANDED_ON:
        if name in request.fixturenames:
            env[variable] = value_of(request)
    made = WorkerProcesses(tmp_path, env)
    yield made
    made.close()


def _vhost_url(request: pytest.FixtureRequest) -> str:
    vhost: Vhost = request.getfixturevalue("vhost")
    return vhost.url


def _node_url(request: pytest.FixtureRequest) -> str:
    node: PrivateNode = request.getfixturevalue("private_node")
    return node.url


def _ledger_path(request: pytest.FixtureRequest) -> str:
    ledger: Ledger = request.getfixturevalue("ledger")
    return str(ledger.path)


_HANDED_ON: tuple[tuple[str, str, Callable[[pytest.FixtureRequest], str]], ...] = (
    ("vhost", "AMQP_TASKS_BROKER_URL", _vhost_url),
    ("private_node", "AMQP_TASKS_BROKER_URL", _node_url),
    ("ledger", "AMQP_TASKS_TEST_LEDGER", _ledger_path),
)
