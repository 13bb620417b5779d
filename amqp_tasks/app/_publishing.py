"""Trying a publish again: what `retry` and `retry_policy` of a call mean.

The transport itself rides out lost connections and restarts of the broker until the deadline (`task_publish_timeout`,
or the call's `timeout`). On top of that:

* a refused publish (`PublishNacked`, e.g. a full queue that rejects) is tried again as the policy says;
* a call that brings its own `retry_policy` also counts failed connections as attempts;
* `retry=False` makes one attempt and raises at once when the broker is down.

The deadline ends everything, whatever the policy says.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.clock import MAX_SECONDS
from amqp_tasks.errors import (
    BrokerConnectionError,
    BrokerUnreachable,
    ConfigurationError,
    NotSent,
    PublishError,
    PublishNacked,
)

if TYPE_CHECKING:
    from amqp_tasks.message import OutgoingMessage
    from amqp_tasks.transport import Transport

__all__ = (
    "ONE_ATTEMPT",
    "PublishPolicy",
    "connect_with_policy",
    "publish_all_with_policy",
    "publish_with_policy",
    "unsent_without_broker",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """When a failed publish is tried again.

    Attributes:
        max_retries: attempts after the first; None: until the deadline.
        interval_start: seconds before the first retry.
        interval_step: seconds added for each further one.
        interval_max: the longest wait, seconds.
        counts_connections: failed connections count as attempts; else the transport rides them out.
    """

    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0
    counts_connections: bool = False

    @classmethod
    def of(cls, numbers: Mapping[str, Any], *, counts_connections: bool) -> PublishPolicy:
        """Read a policy given as a mapping.

        Raises:
            ConfigurationError: an unknown key, or a number that cannot be.
        """
        known = ("max_retries", "interval_start", "interval_step", "interval_max")
        for key, value in numbers.items():
            if key not in known:
                raise ConfigurationError(f"retry_policy has unknown key {key!r} (known: {', '.join(known)})")
            types = int if key == "max_retries" else int | float
            is_number = isinstance(value, types) and not isinstance(value, bool)
            if not (is_number and 0 <= value <= MAX_SECONDS) and not (key == "max_retries" and value is None):
                wanted = (
                    "a whole number from 0, or None" if key == "max_retries" else "a number of seconds from 0"
                )
                raise ConfigurationError(f"retry_policy[{key!r}] must be {wanted}, got {value!r:.80}")
        return cls(**numbers, counts_connections=counts_connections)

    def interval(self, retry: int) -> float:
        """Seconds to wait before retry number `retry`, counted from 0."""
        return min(self.interval_start + retry * self.interval_step, self.interval_max)

    def is_over(self, retry: int) -> bool:
        """Whether there is no retry number `retry`."""
        return self.max_retries is not None and retry >= self.max_retries


ONE_ATTEMPT = PublishPolicy(max_retries=0, counts_connections=True)


def publish_with_policy(
    transport: Transport,
    message: OutgoingMessage,
    policy: PublishPolicy,
    *,
    timeout: float,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] | None = None,
) -> None:
    """Publish, and try again as `policy` says, until `timeout` seconds have passed in all.

    Raises:
        NotSent: certainly not stored.
        SendUnknown: no confirm came in time; never tried again here.
        BrokerConnectionError: no connection, where the policy counts those.
    """

    def attempt(left: float) -> None:
        if policy.counts_connections:
            _connect(transport, left)
        transport.publish(message, timeout=left)

    _try(attempt, policy, timeout, monotonic, pause)


def publish_all_with_policy(
    transport: Transport, messages: Sequence[OutgoingMessage], policy: PublishPolicy, *, timeout: float
) -> list[PublishError | None]:
    """Publish several in bulk, and those that are refused again as `policy` says, until `timeout` seconds have passed in all.

    Returns:
        For each, None or what became of it.
    """
    deadline = time.monotonic() + timeout
    outcomes = list(transport.publish_many(messages, timeout=timeout))
    for retry in itertools.count():
        refused = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, PublishNacked)]
        wait = policy.interval(retry)
        if not refused or policy.is_over(retry) or time.monotonic() + wait >= deadline:
            break
        threading.Event().wait(wait)
        again = [messages[at] for at in refused]
        left = max(0.0, deadline - time.monotonic())
        for at, outcome in zip(refused, transport.publish_many(again, timeout=left), strict=True):
            outcomes[at] = outcome
    return outcomes


@contextmanager
def unsent_without_broker() -> Generator[None]:
    """Around what a caller's publish needs the broker for beforehand: without it, the caller is told that nothing was sent.

    Raises:
        NotSent: the broker could not be asked.
    """
    try:
        yield
    except BrokerConnectionError as exc:
        raise NotSent(str(exc)) from exc


def connect_with_policy(transport: Transport, policy: PublishPolicy, *, timeout: float) -> None:
    """Connect, with failures counted as `policy` says; for what comes before the first publish.

    Raises:
        BrokerConnectionError: no connection.
    """
    _try(lambda left: _connect(transport, left), policy, timeout)


def _try(
    attempt: Callable[[float], None],
    policy: PublishPolicy,
    timeout: float,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] | None = None,
) -> None:
    deadline = monotonic() + timeout
    retry = 0
    while True:
        try:
            attempt(max(0.0, deadline - monotonic()))
            return
        except (PublishNacked, BrokerConnectionError) as exc:
            wait = policy.interval(retry)
            is_final = isinstance(exc, BrokerConnectionError) and exc.is_final
            if is_final or policy.is_over(retry) or monotonic() + wait >= deadline:
                raise
        # An Event that nobody sets: a wait that Ctrl-C ends.
        (pause or threading.Event().wait)(wait)
        retry += 1


# `Transport.open` keeps trying until its time is up; an attempt that is counted ends with the first failure.
_LOOK_EVERY = 0.1


def _connect(transport: Transport, timeout: float) -> None:
    left = timeout
    while True:
        step = min(left, _LOOK_EVERY)
        try:
            transport.open(timeout=step)
            return
        except BrokerUnreachable as exc:
            left -= step
            if not exc.is_attempting or left <= 0:
                raise
