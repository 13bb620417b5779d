"""Tools of the tests: brokers, virtual hosts, a faulty proxy, workers as processes, a ledger, waiting."""

from support.brokers import BrokerNode, BrokerUnavailable
from support.eventually import eventually
from support.ledger import Entry, Ledger
from support.management import Management, ManagementError
from support.nodes import Node
from support.private import PrivateNode
from support.proxy import TcpProxy
from support.raw import RawClient, RawMessage
from support.vhosts import SECRET, Vhost, new_vhost
from support.workers import WorkerProcess, WorkerProcesses

__all__ = (
    "SECRET",
    "BrokerNode",
    "BrokerUnavailable",
    "Entry",
    "Ledger",
    "Management",
    "ManagementError",
    "Node",
    "PrivateNode",
    "RawClient",
    "RawMessage",
    "TcpProxy",
    "Vhost",
    "WorkerProcess",
    "WorkerProcesses",
    "eventually",
    "new_vhost",
)
