"""Which stamps are revoked: what the journal's `revoke-stamps` and `unrevoke-stamps` entries add up to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import Envelope, JournalEntry, has_stamp, new_task_id
from amqp_tasks.worker._aging import AgingKeys
from amqp_tasks.worker._termination import stamps_in, termination_in

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock

__all__ = ("MAX_REVOKED_STAMPS", "RevokedStamps")


MAX_REVOKED_STAMPS = 10_000


class RevokedStamps:
    """A register of the journal; bounded, the oldest leave first.

    Thread safety: `has` from any thread, see `AgingKeys`; the rest by the owner only.

    Args:
        max_age: seconds after which a revocation counts no more.
        clock: time.
        maximum: values that are kept.
    """

    kinds = ("revoke-stamps", "unrevoke-stamps")
    is_for_processes = True

    def __init__(self, *, max_age: float, clock: Clock, maximum: int = MAX_REVOKED_STAMPS) -> None:
        # Names with values.
        self._revoked: AgingKeys[tuple[str, Any]] = AgingKeys(
            "stamps", max_age=max_age, clock=clock, maximum=maximum
        )

    def has(self, envelope: Envelope) -> bool:
        """Whether the task must not be run."""
        return bool(self._revoked) and has_stamp(envelope.headers, self._revoked.__contains__)

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        pairs = stamps_in(entry)
        termination_in(entry)  # who is told of the entry relies on it being as defined
        for pair in pairs:
            self._revoked.forget(pair)
        if entry.kind == "revoke-stamps":
            self._revoked.add(pairs, entry.time)
        self._revoked.drop_surplus()

    def entries(self) -> Iterator[JournalEntry]:
        """See `Register.entries`."""
        for (name, value), time in self._revoked.items():
            facts = {"stamps": {name: [value]}}
            yield JournalEntry(kind="revoke-stamps", id=new_task_id(), time=time, sender="", facts=facts)
