"""The only layer that talks to a broker; see `_contract` for what it promises."""

from amqp_tasks.transport._connect import connect
from amqp_tasks.transport._contract import (
    ConsumedQueues,
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    QueueStatus,
    ServerInfo,
    Settlement,
    TopologyMode,
    Transport,
    TransportStatistics,
)
from amqp_tasks.transport._rights import Permission, Right

__all__ = (
    "ConsumedQueues",
    "Consumer",
    "ConsumerEvent",
    "ConsumerOptions",
    "ConsumerState",
    "Delivery",
    "Permission",
    "QueueStatus",
    "Right",
    "ServerInfo",
    "Settlement",
    "TopologyMode",
    "Transport",
    "TransportStatistics",
    "connect",
)
