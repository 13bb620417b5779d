"""Random workflows of named steps, and what they must come to: a model that knows nothing of messages.

A step gives the sum of what it gets and a number. It may fail, fail until it is resumed, retry once, or have its process killed
once; the model says what each step gives, and which are not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from amqp_tasks import Workflow

__all__ = ("Planned", "name_of", "outcomes_of", "plans", "workflow_of")

Outcome = int | str
"""The value of a step, or `FAILURE`, or `NOT_RUN`."""


@dataclass(frozen=True)
class Planned:
    """A step.

    Attributes:
        kind: `step`, `fail`, `mend` (fails until it is resumed), `again` or `die`.
        number: what it adds.
        after: indexes of the steps that it needs, all before its own.
    """

    kind: str
    number: int
    after: tuple[int, ...] = ()


def plans(
    kinds: tuple[str, ...] = ("step", "step", "step", "again", "fail"), *, most: int = 8
) -> st.SearchStrategy[tuple[Planned, ...]]:
    """Up to `most` steps of these kinds."""

    @st.composite
    def drawn(draw: st.DrawFn) -> tuple[Planned, ...]:
        count = draw(st.integers(1, most))
        return tuple(
            Planned(
                draw(st.sampled_from(kinds)),
                draw(st.integers(0, 9)),
                tuple(draw(st.lists(st.integers(0, index - 1), unique=True, max_size=3))) if index else (),
            )
            for index in range(count)
        )

    return drawn()


def outcomes_of(plan: Sequence[Planned], *, is_resumed: bool = False) -> dict[str, Outcome]:
    """What becomes of each step when the first ones are given 0."""
    found: list[Outcome] = []
    for step in plan:
        needed = [found[index] for index in step.after] or [0]
        if any(isinstance(value, str) for value in needed):
            found.append("NOT_RUN")
        elif step.kind == "fail" or (step.kind == "mend" and not is_resumed):
            found.append("FAILURE")
        else:
            found.append(sum(value for value in needed if isinstance(value, int)) + step.number)
    return {name_of(index): outcome for index, outcome in enumerate(found)}


def name_of(index: int) -> str:
    """Of a step."""
    return f"s{index}"


def workflow_of(plan: Sequence[Planned], signature_of: Callable[[Planned], Any]) -> Workflow:
    """The workflow."""
    workflow = Workflow()
    for index, step in enumerate(plan):
        workflow.step(name_of(index), signature_of(step), after=[name_of(each) for each in step.after])
    return workflow
