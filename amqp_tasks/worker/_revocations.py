"""Which tasks are revoked: what the journal's `revoke` and `unrevoke` entries add up to."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from amqp_tasks.message import JournalEntry, fact_texts, new_task_id

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock

__all__ = ("MAX_REVOKED", "Revocations")

logger = logging.getLogger(__name__)

MAX_REVOKED = 50_000
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revoked:
    """When it was revoked, in seconds since 1970."""

    time: float


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
        self._max_age, self._clock, self._maximum = max_age, clock, maximum
        self._revoked: OrderedDict[str, _Revoked] = OrderedDict()
        self._is_full = False

    def has(self, task_id: str) -> bool:
        """Whether the task must not be run."""
        found = self._revoked.get(task_id)
        return found is not None and not self._is_old(found.time)

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        ids = fact_texts(entry, "ids")
        if entry.kind == "unrevoke":
            for task_id in ids:
                self._revoked.pop(task_id, None)
            return
        time = min(entry.time, self._clock.now().timestamp())
        if self._is_old(time):
            return
        for task_id in ids:
            self._revoked.pop(task_id, None)
            self._revoked[task_id] = _Revoked(time=time)
        self._drop_surplus()

    def entries(self) -> Iterator[JournalEntry]:
        """See `Register.entries`."""
        left = iter(tuple(self._revoked.items()))
        while chunk := list(islice(left, _CHUNK)):
            yield JournalEntry(
                kind="revoke",
                id=new_task_id(),
                time=chunk[-1][1].time,
                sender="",
                facts={"ids": [task_id for task_id, _ in chunk]},
            )

    def _is_old(self, time: float) -> bool:
        return self._clock.now().timestamp() - time > self._max_age

    def _drop_surplus(self) -> None:
        while len(self._revoked) > self._maximum:
            self._revoked.popitem(last=False)
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "more than %d tasks are revoked: the oldest revocations are forgotten", self._maximum,
                    extra={"action": "revocations"},
                )  # fmt: skip
        while self._revoked and self._is_old(next(iter(self._revoked.values())).time):
            self._revoked.popitem(last=False)
