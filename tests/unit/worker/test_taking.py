"""What is found in a join: outcomes of an earlier workflow with the same id are none of it."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace
from typing import Any, cast

import pytest

from amqp_tasks.message import (
    DEFAULT_LIMITS,
    OutgoingMessage,
    StepMark,
    definition_message,
    outcome_message,
)
from amqp_tasks.worker._taking import Taking


def definition(run: str) -> OutgoingMessage:
    mark = StepMark(workflow_id="nightly", step="both", joins=1, run=run)
    waiting = {"body": {"task": "t", "options": {"headers": mark.header}}, "chain": [], "joins": []}
    return definition_message("q", {"size": 2, "steps": [waiting]})


def outcome(index: int, value: int, *, run: str, **more: Any) -> OutgoingMessage:
    return outcome_message("q", index, f"step {index}", value=value, run=run, **more)


def taken(*messages: OutgoingMessage) -> Taking:
    found = Taking(cast("Any", SimpleNamespace(keys=None)), "q", len(messages), DEFAULT_LIMITS)
    found.note(messages)
    return found


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_an_outcome_of_an_earlier_run_is_none_in_whatever_order_they_are_read(order: tuple[int, ...]) -> None:
    late = outcome(0, 1, run="old", added=1)
    messages = [definition("new"), late, outcome(1, 3, run="new")]

    found = taken(*(messages[at] for at in order))

    assert (found.is_complete, list(found.missing()), found.count) == (False, [0], 3)
    found.note([outcome(0, 2, run="new")])
    assert found.is_complete
    assert [each.value for each in found.wanted()] == [2, 3]


def test_an_outcome_that_says_no_run_counts() -> None:
    """That of a step that is added, or of a worker that knows of no runs."""
    assert taken(definition("new"), outcome(0, 1, run=""), outcome(1, 2, run="new")).is_complete
    assert taken(definition(""), outcome(0, 1, run="x"), outcome(1, 2, run="")).is_complete


def test_a_failure_of_an_earlier_run_is_not_kept() -> None:
    failed = outcome_message("q", 0, "step 0", error=ValueError("no"), kept_as="step 0 0", run="old")

    found = taken(failed, outcome(0, 1, run="new"), outcome(1, 2, run="new"), definition("new"))

    assert found.is_complete
    assert found.kept_failures() == frozenset()
    assert [each.error for each in found.wanted()] == [None, None]


def test_the_first_definition_counts() -> None:
    """Not a copy of an earlier workflow's, which somebody may publish at any time."""
    found = taken(definition("new"), outcome(0, 2, run="new"), definition("old"), outcome(0, 1, run="old"))

    found.note([outcome(1, 1, run="old"), outcome(1, 3, run="new")])

    assert found.is_complete
    assert [each.value for each in found.wanted()] == [2, 3]
