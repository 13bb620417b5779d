"""Which tasks are revoked: what the journal's `revoke` and `unrevoke` entries add up to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from amqp_tasks.message import JournalEntry, fact_texts, new_task_id
from amqp_tasks.worker._aging import AgingKeys
from amqp_tasks.worker._job import first_name, name_of, run_name
from amqp_tasks.worker._termination import termination_in

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock

__all__ = ("MAX_REVOKED", "Revocations")


MAX_REVOKED = 50_000
_CHUNK = 500


class Revocations:
    """A register of the journal; bounded, the oldest leave first.

    Thread safety: `has` from any thread, as the interpreter looks a key up and changes a dictionary in one step each; the rest by
    the owner only.

    Args:
        max_age: seconds after which a revocation counts no more.
        clock: time.
        maximum: ids that are kept.
    """

    kinds = ("revoke", "unrevoke")
    is_for_processes = True

    def __init__(self, *, max_age: float, clock: Clock, maximum: int = MAX_REVOKED) -> None:
        self._revoked: AgingKeys[str] = AgingKeys(
            "tasks", max_age=max_age, clock=clock, maximum=maximum, on_forgotten=self._forgotten
        )
        # Of those that are to be terminated, as `run_name` names them.
        self._terminated: set[str] = set()

    def has(self, task_id: str) -> bool:
        """Whether the task must not be run."""
        return task_id in self._revoked

    def is_terminated(self, key: str) -> bool:
        """Whether the run with this key (see `key_of`) is to be ended. Owner thread only."""
        return bool(self._terminated) and not self._terminated.isdisjoint((name_of(key), first_name(key)))

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        ids, termination = fact_texts(entry, "ids"), termination_in(entry)
        for task_id in ids:
            self._revoked.forget(task_id)
        if entry.kind == "unrevoke" or not self._revoked.add(ids, entry.time):
            return
        if termination is not None:
            self._terminated.update(run_name(task_id) for task_id in ids)
        self._revoked.drop_surplus()

    def entries(self) -> Iterator[JournalEntry]:
        """See `Register.entries`."""
        left = iter(self._revoked.items())
        while chunk := list(islice(left, _CHUNK)):
            yield JournalEntry(
                kind="revoke",
                id=new_task_id(),
                time=chunk[-1][1],
                sender="",
                facts={"ids": [task_id for task_id, _ in chunk]},
            )

    def _forgotten(self, task_id: str) -> None:
        self._terminated.discard(run_name(task_id))
