"""Tokens of rate limits that hold for all nodes together: their queues and messages; see `docs/explanation/rate-limits.md`.

A token lies in a queue from which nodes consume. Whoever has one may start one run, and rejects it then: the broker moves it to
a second queue, where it stays for an interval and from where it comes back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.message._amqp import OutgoingMessage, Properties

__all__ = ("RATE_PREFIX", "TokenPlan", "token_plan")

RATE_PREFIX = "amqp_tasks.rate."
"""Names of the queues of tokens begin so."""
_LEAST_INTERVAL = 0.1
"""Seconds that a token waits at least; a faster rate has several, each of which may be late by what the broker takes."""
_KEPT_UNUSED = 86_400.0
_LOCKED_FOR = 60.0
"""Seconds: longer than anybody needs the lock for."""
_MAX_NAME = 200
_DELIVERY_LIMIT = 2**31 - 1
"""In effect none: a token that is handed back is as good as before. Over a limit it would be dead-lettered, and dropped as one that goes
in a circle."""
_TYPE = "amqp-tasks.rate-token"


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """The tokens of one task at one rate.

    Attributes:
        task_name: whose.
        count: how many tokens there are.
        interval_ms: milliseconds that each waits after a start.
    """

    task_name: str
    count: int
    interval_ms: int

    @property
    def rate(self) -> float:
        """Starts per second, were the broker to take no time."""
        return self.count * 1000 / self.interval_ms

    @property
    def queue_name(self) -> str:
        """Where tokens lie that may be used. It names rate and task, so those of another rate are others."""
        task = self.task_name
        if len(task.encode()) > _MAX_NAME:
            task = f"sha256:{sha256(task.encode()).hexdigest()}"
        return f"{RATE_PREFIX}{task}.{self.count}.{self.interval_ms}"

    @property
    def waiting_name(self) -> str:
        """Where tokens wait that were used."""
        return f"{self.queue_name}.wait"

    @property
    def topology(self) -> Topology:
        """Both queues. Dead letters go in a circle between them, which RabbitMQ allows as each round has a rejection: so the one must
        have no maximum and, in effect, no delivery limit.
        """
        interval = self.interval_ms / 1000
        # Without `expires`: to the broker a quorum queue that nobody consumes is unused, and goes with what it holds.
        waiting = Queue(
            self.waiting_name,
            message_ttl=interval,
            dead_letter_exchange="",
            dead_letter_routing_key=self.queue_name,
        )
        ready = Queue(
            self.queue_name,
            dead_letter_exchange="",
            dead_letter_routing_key=self.waiting_name,
            delivery_limit=_DELIVERY_LIMIT,
            expires=max(_KEPT_UNUSED, 2 * interval),
        )
        return Topology(queues=(waiting, ready))

    @property
    def lock(self) -> Topology:
        """A queue that only one connection can have: who has it may make tokens, or take one away.

        It goes by itself, should its owner not get round to deleting it: else nobody could make tokens while that one lives.
        """
        name = f"{self.queue_name}.lock"
        queue = Queue(name, type=QueueType.CLASSIC, durable=False, exclusive=True, expires=_LOCKED_FOR)
        return Topology(queues=(queue,))

    def token(self, *, is_used: bool) -> OutgoingMessage:
        """A new token; one that is used waits first."""
        return OutgoingMessage(
            exchange="",
            routing_key=self.waiting_name if is_used else self.queue_name,
            body=b"",
            properties=Properties(type=_TYPE),
        )


def token_plan(task_name: str, rate: float) -> TokenPlan:
    """The tokens that let a task start `rate` times per second at most.

    >>> token_plan("send", 10 / 60)
    TokenPlan(task_name='send', count=1, interval_ms=6000)
    >>> token_plan("send", 100)
    TokenPlan(task_name='send', count=10, interval_ms=100)

    Args:
        task_name: any.
        rate: above 0; see `is_cluster_rate`.
    """
    count = max(1, math.ceil(round(rate * _LEAST_INTERVAL, 6)))
    return TokenPlan(task_name, count, math.ceil(round(count * 1000 / rate, 6)))
