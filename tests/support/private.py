"""A node that one test may break, with a virtual host of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.management import Management
from support.nodes import Node
from support.vhosts import Vhost, new_vhost

__all__ = ("PrivateNode", "private_to_one_test")


class PrivateNode:
    """What the `private_node` fixture hands out: the node is shared between tests, one after the other."""

    def __init__(self, node: Node, vhost: Vhost) -> None:
        self.node = node
        self.vhost = vhost
        self.url = vhost.url
        self.port = node.port
        self.start, self.stop, self.kill = node.start, node.stop, node.kill
        self.restart, self.pause, self.resume = node.restart, node.pause, node.resume
        self.ctl = node.ctl
        self.raise_memory_alarm, self.clear_memory_alarm = node.raise_memory_alarm, node.clear_memory_alarm
        self.raise_disk_alarm, self.clear_disk_alarm = node.raise_disk_alarm, node.clear_disk_alarm

    @property
    def management(self) -> Management:
        """The node's management client."""
        return self.node.management


@contextmanager
def private_to_one_test(node: Node) -> Iterator[PrivateNode]:
    """The node, healthy, with a fresh virtual host; healed again at the end."""
    node.heal()
    with new_vhost(node.url, node.management) as vhost:
        try:
            yield PrivateNode(node, vhost)
        finally:
            node.heal()
