"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import Node, PrivateNode, RawClient, Vhost
from support.outages import Outage, run_outage
from support.private import private_to_one_test
from support.worker_client import WorkerClient


@pytest.fixture
def client(vhost: Vhost) -> Iterator[WorkerClient]:
    """Calls tasks in the test's virtual host."""
    with WorkerClient(vhost.url) as made:
        yield made


@pytest.fixture
def private_client(private_node: PrivateNode) -> Iterator[WorkerClient]:
    """Calls tasks on the node that the test breaks; gives up after two seconds."""
    with WorkerClient(private_node.url, task_publish_timeout=2.0) as made:
        yield made


@pytest.fixture
def private_raw(private_node: PrivateNode) -> Iterator[RawClient]:
    """An independent client of the node that the test breaks; made before it is broken."""
    with RawClient(private_node.url) as made:
        yield made


@pytest.fixture(scope="module", params=["restart", "kill"])
def outage(
    request: pytest.FixtureRequest, _breakable_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Outage:
    """One outage of the broker under load, and what became of everything; the tests only look at it."""
    with private_to_one_test(_breakable_node) as node:
        return run_outage(node, how=request.param, folder=tmp_path_factory.mktemp("outage"))
