"""A result and those before it, however many steps a workflow has (P canvas)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, AsyncResult, GroupResult, result_from_tuple

STEPS = 5_000
AnyResult = AsyncResult[Any] | GroupResult[Any]


@pytest.fixture
def app() -> Iterator[App]:
    with App("long", broker=f"memory://{uuid4().hex}/", result_backend="rpc://") as made:
        yield made


def chain_of(app: App, steps: int) -> AsyncResult[Any]:
    """The result of a chain; that of its second step is a group's."""
    made: AnyResult = AsyncResult("0", app=app)
    for number in range(1, steps):
        if number == 1:
            members = [AsyncResult[Any](f"1.{index}", app=app, parent=made) for index in range(2)]
            made = GroupResult("1", members, parent=made)
        else:
            made = AsyncResult(f"{number}", app=app, parent=made)
    assert isinstance(made, AsyncResult)
    return made


def test_the_result_of_a_long_chain_knows_its_beginning(app: App) -> None:
    result = chain_of(app, STEPS)

    assert result.root.id == "0"
    assert result.parent is not None
    assert result.as_list() == [f"{number}" for number in reversed(range(STEPS))]
    assert result.parent.as_list() == result.as_list()[1:]


def test_the_result_of_a_long_chain_is_written_and_read(app: App) -> None:
    result = chain_of(app, STEPS)

    read = result_from_tuple(result.as_tuple(), app)

    assert read.as_list() == result.as_list()
    *_, group, first = _before(read)
    assert isinstance(group, GroupResult)
    assert [member.as_list() for member in group] == [["1.0", "0"], ["1.1", "0"]]
    assert (first.id, first.parent) == ("0", None)


def test_a_result_after_many_groups_is_described_in_little_time(app: App) -> None:
    """Each member follows what was before its group, which is described once."""
    made: AnyResult = AsyncResult("0", app=app)
    for number in range(1, 60):
        members = [AsyncResult[Any](f"{number}.{index}", app=app, parent=made) for index in range(3)]
        made = GroupResult(f"{number}", members, parent=made)

    (task_id, before), members_told = made.as_tuple()

    assert members_told is not None
    assert (task_id, len(members_told)) == ("59", 3)
    assert {id(parent) for (_, parent), _ in members_told} == {id(before)}


def test_a_long_chain_is_drawn(app: App) -> None:
    steps = 1_500  # each line is longer than the one before

    lines = chain_of(app, steps).graph().text().splitlines()

    assert len(lines) == steps + 2, "one step has two members, and what follows stands below both"
    assert lines[0] == "0: UNKNOWN"
    assert lines[2].strip() == "2: UNKNOWN"
    assert lines[-1].strip() == "2: UNKNOWN …"


def _before(result: AnyResult) -> Iterator[AnyResult]:
    while result.parent is not None:
        result = result.parent
        yield result
