"""What a task's message says of the named step that it is: a header, so that it survives retries and dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amqp_tasks.message._amqp import HeaderValue
from amqp_tasks.message._headers import STEP_HEADER

__all__ = ("STEP_HEADER", "StepMark", "read_mark")


_MAX_JOINS = 65_536
"""More than any workflow has: whoever reads a mark may go through the names of all of its joins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMark:
    """Which step of which workflow a task is.

    Attributes:
        workflow_id: of the workflow.
        step: its name.
        joins: how many joins the workflow has; their queues are numbered from 0.
        run: tells it from earlier workflows with the same id; empty where there can be none.
    """

    workflow_id: str
    step: str
    joins: int
    run: str = ""

    @property
    def header(self) -> dict[str, HeaderValue]:
        """As headers of a message."""
        told: list[HeaderValue] = [self.workflow_id, self.step, self.joins]
        return {STEP_HEADER: [*told, self.run] if self.run else told}


def read_mark(headers: Mapping[str, HeaderValue] | None) -> StepMark | None:
    """The mark of a message; None when it has none that is well formed."""
    match (headers or {}).get(STEP_HEADER):
        case [str(workflow_id), str(step), int(joins), *more] if 0 <= joins < _MAX_JOINS:
            run = more[0] if more and isinstance(more[0], str) else ""
            return StepMark(workflow_id=workflow_id, step=step, joins=joins, run=run)
        case _:
            return None
