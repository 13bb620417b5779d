"""Finding the broker of a test run; see `find_broker` for the order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from support.containers import ContainerNode
from support.management import Management
from support.nodes import LocalNode, Node, NodeUnavailable

__all__ = ("BrokerNode", "BrokerUnavailable", "find_broker", "first_that_works", "start_node")

T = TypeVar("T")

REMEDY = """broker tests need a RabbitMQ, and none was found:
{reasons}
Do one of these:
  * point AMQP_TASKS_TEST_BROKER_URL (and AMQP_TASKS_TEST_MANAGEMENT_URL) to one that tests may use;
  * start Docker, so that testcontainers can run rabbitmq:4-management;
  * install one, e.g. `apt-get install rabbitmq-server`: the tests start a private node of it."""


class BrokerUnavailable(Exception):
    """No broker for the tests; says how to get one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerNode:
    """The broker of this run. `node` is None when it was given and is not ours to stop."""

    url: str
    management_url: str
    management: Management
    version: tuple[int, ...]
    node: Node | None

    def close(self) -> None:
        """End it if the tests started it."""
        if self.node is not None:
            self.node.remove()


def find_broker() -> BrokerNode:
    """The first that works: AMQP_TASKS_TEST_BROKER_URL, a container, a private node of an installed server.

    Raises:
        BrokerUnavailable: there is none.
    """
    given = os.environ.get("AMQP_TASKS_TEST_BROKER_URL")
    if given:
        return _given(given)
    node = start_node()
    management = node.management
    return BrokerNode(
        url=node.url,
        management_url=management.base,
        management=management,
        version=management.version(),
        node=node,
    )


def _given(url: str) -> BrokerNode:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0] or "guest:guest"
    default = f"http://{credentials}@{parts.hostname}:15672"
    management_url = os.environ.get("AMQP_TASKS_TEST_MANAGEMENT_URL") or default
    management = Management(management_url)
    try:
        version = management.version()
    except Exception as exc:
        raise BrokerUnavailable(
            f"AMQP_TASKS_TEST_BROKER_URL is set, but no management API answers at {management.base} ({exc}); "
            "set AMQP_TASKS_TEST_MANAGEMENT_URL to http://user:password@host:port"
        ) from exc
    return BrokerNode(
        url=url, management_url=management_url, management=management, version=version, node=None
    )


def start_node(*, prefer: str = "container") -> Node:
    """Start a node of our own, of the preferred kind (`container` or `installed`) if that works.

    Raises:
        BrokerUnavailable: neither works; see `first_that_works`.
    """
    makers: dict[str, Callable[[], Node]] = {"container": ContainerNode, "installed": LocalNode}
    return first_that_works(
        {kind: partial(_started, make) for kind, make in makers.items()}, prefer=prefer, remedy=REMEDY
    )


def first_that_works(starters: Mapping[str, Callable[[], T]], *, prefer: str, remedy: str) -> T:
    """Call the starter of the preferred kind, then the others.

    AMQP_TASKS_TEST_BROKER names the only kind that may be tried: a run that is meant for one must not pass on another.

    Raises:
        BrokerUnavailable: none works; `remedy` with the reasons.
    """
    only = os.environ.get("AMQP_TASKS_TEST_BROKER")
    reasons: list[str] = []
    for kind in sorted(starters, key=lambda kind: kind != prefer):
        if only in {None, "", kind}:
            try:
                return starters[kind]()
            except NodeUnavailable as exc:
                reasons.append(f"  * {kind}: {exc}")
    raise BrokerUnavailable(remedy.format(reasons="\n".join(reasons)))


def _started(make: Callable[[], Node]) -> Node:
    node = make()
    try:
        node.start()
    except BaseException:
        node.remove()
        raise
    return node
