"""The broker is restarted, killed, paused and closes its connections, under load: nobody notices.

In each run a worker is told to stop while the broker is away, callers go on calling, and others wait for results.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.conservation import Outcome
from support.scenarios import STOP_TIMEOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LIMIT = 2.0
"""Seconds of promise 11: from when the broker takes connections again to the first task that begins."""

PUBLISH_TIMEOUT = 30.0


@pytest.fixture(params=["restart", "kill", "pause", "close"])
def outage(request: pytest.FixtureRequest, short_run: Callable[[str], Outcome]) -> Outcome:
    """One outage under load and what became of everything; the tests only look at it."""
    return short_run(request.param)


def test_promise_01_what_a_call_returned_for_survives_the_broker(outage: Outcome) -> None:
    """Rows U028, R12."""
    assert len(outage.accepted) >= 40
    assert outage.lost == set()


def test_promise_04_an_outage_shorter_than_the_publish_timeout_refuses_no_call(outage: Outcome) -> None:
    """Row U036."""
    assert outage.refused | outage.unknown == set()
    assert outage.slowest_submit < PUBLISH_TIMEOUT


def test_promise_11_tasks_are_run_again_within_two_seconds_of_the_brokers_return(outage: Outcome) -> None:
    """Rows U001, U002, U006, U013."""
    print(f"back after {outage.pause_after_return:.2f} s")

    assert 0 < outage.pause_after_return <= LIMIT


def test_promise_15_a_worker_that_is_stopped_while_the_broker_is_away_ends_in_time(outage: Outcome) -> None:
    assert set(outage.statuses) <= {0, 1}
    assert outage.statuses[:2] == (0, 0)


def test_promise_16_every_get_ends_with_the_value_or_a_timeout(outage: Outcome) -> None:
    """`waiter-0` gives each result 30 seconds, `waiter-1` half a second. Row U007."""
    in_vain = {key for key in outage.no_values if not key.startswith("waiter-1")}

    assert in_vain == set()
    assert {key.rpartition("-")[0] for key in outage.values} == {"waiter-0", "waiter-1"}
    assert {note.partition(":")[0] for note in outage.no_values.values()} <= {"ResultTimeout"}
    assert outage.slowest_get["waiter-1"] < STOP_TIMEOUT
