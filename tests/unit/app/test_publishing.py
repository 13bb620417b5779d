"""Attempts of a publish, counted with a clock that the test moves."""

from __future__ import annotations

from typing import Any, cast

import pytest

from amqp_tasks.app._publishing import ONE_ATTEMPT, PublishPolicy, publish_with_policy
from amqp_tasks.errors import BrokerUnreachable, ConfigurationError, PublishNacked, SendUnknown
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport import Transport

MESSAGE = OutgoingMessage(exchange="", routing_key="q", body=b"", properties=Properties())


class Refusing:
    """The two methods a publish needs; each attempt ends with the next outcome."""

    def __init__(self, *outcomes: Exception | None, connects: bool = True) -> None:
        self.outcomes, self.connects = list(outcomes), connects
        self.attempts = 0

    def open(self, *, timeout: float) -> None:
        if not self.connects:
            self.attempts += 1
            raise BrokerUnreachable("refused")

    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        self.attempts += 1
        outcome = self.outcomes.pop(0) if self.outcomes else PublishNacked("full")
        if outcome is not None:
            raise outcome


def attempt(transport: Refusing, policy: PublishPolicy, timeout: float = 100.0) -> list[float]:
    """Publish; returns the waits between attempts."""
    waits: list[float] = []
    publish_with_policy(
        cast(Transport, transport),
        MESSAGE,
        policy,
        timeout=timeout,
        monotonic=lambda: sum(waits),
        pause=waits.append,
    )
    return waits


def test_a_nack_is_tried_again_with_growing_waits() -> None:
    nack = PublishNacked("full")
    policy = PublishPolicy(max_retries=4, interval_start=0, interval_step=0.4, interval_max=1)

    assert attempt(Refusing(nack, nack, nack, nack, None), policy) == pytest.approx([0, 0.4, 0.8, 1.0])


def test_the_number_of_retries_is_an_end() -> None:
    transport = Refusing()

    with pytest.raises(PublishNacked):
        attempt(transport, PublishPolicy(max_retries=3))

    assert transport.attempts == 4


def test_the_deadline_ends_retries_without_number() -> None:
    transport = Refusing()

    with pytest.raises(PublishNacked):
        attempt(transport, PublishPolicy(max_retries=None, interval_start=1), timeout=10)

    assert transport.attempts == 10


def test_an_unknown_outcome_is_never_tried_again() -> None:
    transport = Refusing(SendUnknown("?"))

    with pytest.raises(SendUnknown):
        attempt(transport, PublishPolicy(max_retries=None))

    assert transport.attempts == 1


@pytest.mark.parametrize(
    ("policy", "attempts"), [(ONE_ATTEMPT, 1), (PublishPolicy(max_retries=2, counts_connections=True), 3)]
)
def test_connections_count_where_the_call_says_so(policy: PublishPolicy, attempts: int) -> None:
    transport = Refusing(connects=False)

    with pytest.raises(BrokerUnreachable):
        attempt(transport, policy)

    assert transport.attempts == attempts


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"max_retry": 1}, "unknown key 'max_retry'"),
        ({"interval_step": -1}, "must be a number"),
        ({"interval_max": None}, "must be"),
    ],
)
def test_a_wrong_policy_is_refused(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PublishPolicy.of(numbers, counts_connections=True)
