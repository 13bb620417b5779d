"""`memory://`: a broker inside the process, for tests and for trying things out.

All transports of one process with the same URL share one broker, which lives until the process ends; `memory://name/`
names another. It keeps AMQP's promises but one: nothing outlives the process, and other processes do not see it. A
forked child starts with an empty broker.

Exact here: exchanges of every type but consistent-hash, unroutable messages, priorities (`max_priority`),
prefetch, redelivery, delivery limits, dead-lettering with `x-death`, message TTL and expiration, `max_length` with
every overflow, `expires`, single active consumer, consumer priorities. Refused: streams and consistent-hash
exchanges. Accepted without effect: `durable`, `auto_delete`, `consumer_timeout`, `delayed_retry_type`, delivery modes, users.
"""

from amqp_tasks.transport.memory._transport import MemoryTransport

__all__ = ("MemoryTransport",)
