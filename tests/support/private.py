"""A node that one test may break, with a virtual host of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.management import Management
from support.nodes import Node
from support.vhosts import Vhost, make_vhost

__all__ = ("PrivateNode", "private_to_one_test")

SETTLED_AFTER = 8.0


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
    vhost = make_vhost(node.url, node.management)
    try:
        yield PrivateNode(node, vhost)
    finally:
        node.heal()
        _delete_when_settled(node, vhost)


_undeleted: list[tuple[Node, Vhost]] = []


def _delete_when_settled(node: Node, vhost: Vhost) -> None:
    """Delete the virtual host, or leave that to a later test when the node has come up only now.

    A queue of the delay wheel that is deleted before it has a leader again ends `rabbit_fifo_dlx_sup` of that node for good: every
    queue with at-least-once dead-lettering crashes from then on (seen with 3.10.8).
    """
    _undeleted.append((node, vhost))
    for waiting in [each for each in _undeleted if each[0].is_running() and each[0].up_for > SETTLED_AFTER]:
        _undeleted.remove(waiting)
        waiting[1].delete()
