"""The broker is restarted, and killed, under a producer, a worker and callers who wait: nobody notices."""

from __future__ import annotations

import pytest

from support.outages import Outage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LIMIT = 2.0
"""Seconds of promise 11: from when the broker takes connections again to the first task that ends."""


def test_promise_01_what_a_call_returned_for_survives_the_broker(outage: Outage) -> None:
    assert len(outage.accepted) > 50
    assert outage.lost == ""


def test_promise_04_an_outage_shorter_than_the_publish_timeout_refuses_no_call(outage: Outage) -> None:
    assert outage.refused == []
    assert outage.slowest < 30


def test_promise_11_tasks_are_run_again_within_two_seconds_of_the_brokers_return(outage: Outage) -> None:
    print(f"back after {outage.pause:.2f} s")

    assert 0 < outage.pause <= LIMIT
    assert outage.status == 0


def test_promise_16_every_get_ends_with_the_value_or_a_timeout(outage: Outage) -> None:
    seconds, error = outage.early_timeout

    assert outage.failures == {}
    assert outage.values == {key: key for key in outage.accepted}
    assert isinstance(error, TimeoutError) or seconds == 0.0
    assert seconds < 5
