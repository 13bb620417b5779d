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
    """

    workflow_id: str
    step: str
    joins: int

    @property
    def header(self) -> dict[str, HeaderValue]:
        """As headers of a message."""
        return {STEP_HEADER: [self.workflow_id, self.step, self.joins]}


def read_mark(headers: Mapping[str, HeaderValue] | None) -> StepMark | None:
    """The mark of a message; None when it has none that is well formed."""
    match (headers or {}).get(STEP_HEADER):
        case [str(workflow_id), str(step), int(joins)] if 0 <= joins < _MAX_JOINS:
            return StepMark(workflow_id=workflow_id, step=step, joins=joins)
        case _:
            return None
