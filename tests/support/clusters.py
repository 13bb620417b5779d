"""A RabbitMQ cluster of nodes of our own, which the tests start, break and end themselves."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from support.brokers import first_that_works
from support.containers import ContainerNode, check_engine
from support.eventually import eventually
from support.management import Management
from support.nodes import LocalNode, Node, Seat, free_port
from support.vhosts import make_vhost

__all__ = ("Cluster", "ClusterVhost", "in_own_vhost", "running_cluster")

SIZE = 3
START_LIMIT = 120.0
REMEDY = """tests of clusters start three nodes of their own, and none could be started:
{reasons}
Start Docker (image rabbitmq:4-management), or install RabbitMQ, e.g. `apt-get install rabbitmq-server`."""


class Cluster:
    """Nodes that know each other.

    1. `running_cluster` starts and joins them.
    2. A test breaks single nodes; see `Node`.
    3. `heal` brings all back; `in_own_vhost` does so before and after each test.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    @property
    def management(self) -> Management:
        """Of a node that runs."""
        return next(node for node in self.nodes if node.is_running()).management

    def heal(self) -> None:
        """Bring all nodes back and wait until they see each other."""
        for node in self.nodes:
            node.resume()
            node.begin()
        for node in self.nodes:
            node.heal()
        eventually(self._check_complete, within=START_LIMIT)

    def _check_complete(self) -> None:
        for node in self.nodes:
            seen = node.management.request("GET", "nodes", timeout=30.0)
            assert sum(bool(each.get("running")) for each in seen) == len(self.nodes), (
                f"{node.name} sees {[each['name'] for each in seen if each.get('running')]}"
            )


class ClusterVhost:
    """A virtual host of one test on a cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def url_of(self, node: Node) -> str:
        """Through one node."""
        return urlsplit(node.url)._replace(path=f"/{self.name}").geturl()

    def urls(self, *, first: Node | None = None) -> str:
        """All addresses as the setting `broker_url` takes them; `first` is the one that is tried first."""
        ordered = sorted(self.cluster.nodes, key=lambda node: node is not first)
        return ";".join(map(self.url_of, ordered))

    def queue(self, name: str) -> dict[str, Any]:
        """What the management API tells of a queue."""
        return self.cluster.management.queue(self.name, name)

    def node_of(self, queue_name: str) -> Node:
        """Where a queue lives: a quorum queue's leader, a classic queue's only node."""
        found = self.queue(queue_name)
        home = found.get("leader") or found["node"]
        return next(node for node in self.cluster.nodes if node.name == home)


@contextmanager
def in_own_vhost(cluster: Cluster) -> Iterator[ClusterVhost]:
    """The cluster, whole, with a fresh virtual host, which goes with the cluster (why: `support.private`); healed at the end."""
    cluster.heal()
    first = cluster.nodes[0]
    try:
        yield ClusterVhost(cluster, make_vhost(first.url, first.management).name)
    finally:
        cluster.heal()


@contextmanager
def running_cluster(*, prefer: str = "container") -> Iterator[Cluster]:
    """Start a cluster of `SIZE` nodes of the preferred kind (`container` or `installed`) if that works.

    Raises:
        BrokerUnavailable: neither works.
    """
    with ExitStack() as stack:
        kinds = {"container": _containers, "installed": _installed}
        yield first_that_works(
            {kind: partial(_enter, stack, make) for kind, make in kinds.items()}, prefer=prefer, remedy=REMEDY
        )


def _enter(stack: ExitStack, make: Callable[[], AbstractContextManager[Cluster]]) -> Cluster:
    return stack.enter_context(make())


@contextmanager
def _installed() -> Iterator[Cluster]:
    names = [f"t{uuid.uuid4().hex[:8]}@localhost" for _ in range(SIZE)]
    with _started([LocalNode(seat=seat) for seat in _seats(names, free_port())]) as cluster:
        yield cluster


@contextmanager
def _containers() -> Iterator[Cluster]:
    check_engine()
    names = [f"rabbit@t{uuid.uuid4().hex[:8]}" for _ in range(SIZE)]
    with (
        _network() as network,
        _started([ContainerNode(seat=seat) for seat in _seats(names, network)]) as cluster,
    ):
        yield cluster


@contextmanager
def _network() -> Iterator[str]:
    from testcontainers.core.network import Network

    made = Network()
    try:
        made.create()
        # The Docker client keeps its sockets for later calls; the leak check would count them.
        made._docker.client.close()
        yield made.name
    finally:
        if made._network is not None:
            made.remove()
        made._docker.client.close()


def _seats(names: Sequence[str], meeting_point: int | str) -> list[Seat]:
    cookie = uuid.uuid4().hex
    return [
        Seat(name=name, members=tuple(names), cookie=cookie, meeting_point=meeting_point) for name in names
    ]


@contextmanager
def _started(nodes: Sequence[Node]) -> Iterator[Cluster]:
    cluster = Cluster(nodes)
    try:
        cluster.heal()
        yield cluster
    finally:
        for node in nodes:
            node.remove()
