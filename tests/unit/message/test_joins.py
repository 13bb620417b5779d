"""What lies in a join's queue, and what a named step's header says."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage, StepNotRun
from amqp_tasks.message import (
    JoinOutcome,
    JoinTold,
    Needed,
    OutgoingMessage,
    Properties,
    StepMark,
    dead_letter,
    definition_message,
    exception_from_data,
    outcome_message,
    read_join,
    read_joins,
    read_mark,
    read_needs,
    told_message,
)

QUEUE = "amqp_tasks.join.w.0"
PART: dict[str, Any] = {"body": {"task": "t"}, "chain": [], "joins": [[QUEUE, 0, 2]]}


def read(message: OutgoingMessage) -> Any:
    return read_join(message.properties, message.body)


def test_a_failure_that_is_kept_says_so_and_what_it_began_with() -> None:
    error = StepNotRun.because_of("a", ValueError("no"))

    found = read(outcome_message(QUEUE, 1, "id", error=error, kept_as="id retry 2"))

    assert isinstance(found, JoinOutcome)
    assert (found.index, found.kept_as) == (1, "id retry 2")
    assert exception_from_data(found.error) == error


def test_a_success_is_never_a_kept_failure() -> None:
    assert read(outcome_message(QUEUE, 1, "id", value=3, kept_as="id")).kept_as == ""


def test_what_a_join_needs_is_read_as_it_was_written_and_what_is_odd_has_no_name() -> None:
    needed = Needed(name="a", behind=QUEUE, members=[("id-1", "replies"), ("id-2", "")])

    assert read_needs({"needs": [needed.data, 5, ["a", "b", [7]]]}) == [
        needed,
        Needed(name="?", behind="", members=()),
        Needed(name="a", behind="b", members=[]),
    ]
    assert read_needs({"needs": 5}) == read_needs({}) == []


def test_what_was_told_is_read_as_it_was_written() -> None:
    assert read(told_message(QUEUE, {"b", "a"})) == JoinTold(frozenset({"a", "b"}))


@pytest.mark.parametrize(
    "steps",
    [
        [PART, {**PART, "body": None}],
        [{**PART, "chain": "x"}],
        [{**PART, "joins": [["tasks", 0, 2]]}],
        ["x"],
    ],
)
def test_a_definition_of_steps_that_cannot_be_begun_is_none(steps: list[Any]) -> None:
    assert read(definition_message(QUEUE, {"size": 1, "steps": [PART]}))["steps"] == [PART]
    with pytest.raises(MalformedMessage):
        read(definition_message(QUEUE, {"size": 1, "steps": steps}))


def test_a_mark_is_read_where_it_is_well_formed() -> None:
    mark = StepMark(workflow_id="w", step="a", joins=3)

    assert read_mark(mark.header) == mark
    for bad in (None, "w", ["w", "a"], ["w", "a", -1], ["w", "a", 10**9], [1, "a", 1]):
        assert read_mark({"x-amqp-tasks-step": bad}) is None


def test_a_mark_says_its_run_where_it_has_one() -> None:
    mark = StepMark(workflow_id="w", step="a", joins=3, run="r")

    assert read_mark(mark.header) == mark
    assert mark.header["x-amqp-tasks-step"] == ["w", "a", 3, "r"]
    # What a later version may write.
    assert read_mark({"x-amqp-tasks-step": ["w", "a", 3, "r", 1]}) == mark
    assert read_mark({"x-amqp-tasks-step": ["w", "a", 3, 1]}) == StepMark(workflow_id="w", step="a", joins=3)


def test_a_dead_letter_keeps_who_waits_whatever_else_it_carries() -> None:
    mark = StepMark(workflow_id="w" * 200, step="a", joins=256)
    joins = [[f"amqp_tasks.join.{'w' * 200}.{number}", 0, 2] for number in range(256)]
    headers = {"x-amqp-tasks-joins": joins, **mark.header, **{f"mine-{n}": "x" * 9_000 for n in range(9)}}

    letter = dead_letter(
        queue_name="q", exchange="", routing_key="q", properties=Properties(headers=headers), body=b"",
        reason="failed", detail="",
    )  # fmt: skip

    assert read_mark(letter.properties.headers) == mark
    assert len(read_joins(letter.properties.headers)) == 256
