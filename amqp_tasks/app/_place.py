"""Where in a workflow a call stands, and how its message says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import JOINS_HEADER, stamp_headers

if TYPE_CHECKING:
    from amqp_tasks.app._options import CallOptions

__all__ = ("Place", "embed", "header_changes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a workflow a call stands.

    Attributes:
        chain: what follows it, the next one last.
        joins: who waits for its outcome: `[queue, index, size]` each.
        group, group_index: the group it is a member of, and its place.
        chord: the body that stock Celery is to run when the group has ended; only passed on.
        root_id: the first task of the workflow; None for this one.
        parent_id: what it follows.
        nesting: how often a task was replaced until it came to this one.
    """

    chain: Sequence[Mapping[str, Any]] = ()
    joins: Sequence[Any] = ()
    group: str | None = None
    group_index: int | None = None
    chord: Mapping[str, Any] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    nesting: int = 0

    @property
    def changes(self) -> dict[str, Any] | None:
        """Headers that say so."""
        changes: dict[str, Any] = {}
        if self.group is not None:
            changes |= {"group": self.group, "group_index": self.group_index}
        if self.nesting:
            changes["replaced_task_nesting"] = self.nesting
        if self.joins:
            changes[JOINS_HEADER] = list(self.joins)
        return changes or None


def embed(options: CallOptions, place: Place | None) -> dict[str, Any] | None:
    """The body's third part; None when it says nothing."""
    callbacks, errbacks = _several(options.get("link")), _several(options.get("link_error"))
    rest = list(place.chain) if place is not None and place.chain else None
    chord = place.chord if place is not None else None
    if not (callbacks or errbacks or rest or chord):
        return None
    return {"callbacks": callbacks, "errbacks": errbacks, "chain": rest, "chord": chord}


def header_changes(options: CallOptions, place: Place | None) -> Mapping[str, Any] | None:
    """Headers that say where in a workflow it stands, and its stamps."""
    changes = place.changes if place is not None else None
    stamps = options.get("stamps") if options else None
    return {**(changes or {}), **stamp_headers(stamps)} if stamps else changes


def _several(option: Any) -> list[Any] | None:
    from amqp_tasks.canvas import signatures

    return signatures(option) or None if option else None
