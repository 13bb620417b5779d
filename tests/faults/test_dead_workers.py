"""Processes and whole workers are killed under load, by others and by their own tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.conservation import Outcome
from support.scenarios import KILLERS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["processes", "workers"])
def test_promise_06_killed_processes_and_workers_lose_nothing_under_load(
    short_run: Callable[[str], Outcome], name: str
) -> None:
    outcome = short_run(name)

    assert len(outcome.accepted) >= 40
    assert outcome.refused | outcome.unknown == set()
    assert set(outcome.statuses[-2:]) == {0}


def test_promise_07_killers_are_parked_after_three_runs_and_the_good_ones_run_once(
    short_run: Callable[[str], Outcome],
) -> None:
    """There is no fault but the killers, so only what their processes had not yet acked may run twice."""
    outcome = short_run("killers")

    assert outcome.dead == dict.fromkeys((f"{key}-0" for key in KILLERS), "crash-limit")
    assert {outcome.started[key] for key in outcome.dead} == {3}
    assert len(outcome.executed) > 20
    assert len(outcome.duplicates) <= 3 * len(KILLERS)
