"""RabbitMQ over AMQP 0-9-1, with pika. Read `docs/explanation/connections.md` first."""

from amqp_tasks.transport.rabbitmq._options import Address, TransportOptions
from amqp_tasks.transport.rabbitmq._transport import RabbitTransport

__all__ = ("Address", "RabbitTransport", "TransportOptions")
