"""Which tasks are revoked: what the journal's `revoke` and `unrevoke` entries add up to."""

from __future__ import annotations

import logging
import signal
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import DeadLetterReason, JournalEntry, fact_texts, new_task_id
from amqp_tasks.worker._job import first_key, key_of

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock

__all__ = ("MAX_REVOKED", "Revocations", "Termination", "termination_in")

logger = logging.getLogger(__name__)

MAX_REVOKED = 50_000
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """That running tasks are to be ended.

    Attributes:
        ids: which.
        signal: what their process gets, if it has a handler.
    """

    ids: tuple[str, ...]
    signal: signal.Signals


def termination_in(entry: JournalEntry) -> Termination | None:
    """What an entry says of running tasks; None: nothing.

    Raises:
        MalformedMessage: it is a `revoke` entry with facts of other types.
    """
    if entry.kind != "revoke":
        return None
    wanted = entry.facts.get("terminate", False)
    if not isinstance(wanted, bool):
        raise MalformedMessage(DeadLetterReason.BAD_BODY, "'terminate' of a 'revoke' entry is no boolean")
    if not wanted:
        return None
    # A name that this system does not know: the task is ended all the same.
    number = getattr(signal.Signals, str(entry.facts.get("signal")), signal.SIGTERM)
    return Termination(ids=fact_texts(entry, "ids"), signal=number)


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
        # Ids, each with when it was revoked, in seconds since 1970.
        self._revoked: OrderedDict[str, float] = OrderedDict()
        # Of those that are to be terminated, as `key_of` names them.
        self._terminated: set[str] = set()
        self._is_full = False

    def has(self, task_id: str) -> bool:
        """Whether the task must not be run."""
        time = self._revoked.get(task_id)
        return time is not None and not self._is_old(time)

    def is_terminated(self, key: str) -> bool:
        """Whether the run with this key (see `key_of`) is to be ended. Owner thread only."""
        return bool(self._terminated) and not self._terminated.isdisjoint((key, first_key(key)))

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        ids, termination = fact_texts(entry, "ids"), termination_in(entry)
        for task_id in ids:
            self._forget(task_id)
        if entry.kind == "unrevoke":
            return
        time = min(entry.time, self._clock.now().timestamp())
        if self._is_old(time):
            return
        self._revoked.update(dict.fromkeys(ids, time))
        if termination is not None:
            self._terminated.update(key_of(task_id, 0) for task_id in ids)
        self._drop_surplus()

    def entries(self) -> Iterator[JournalEntry]:
        """See `Register.entries`."""
        left = iter(tuple(self._revoked.items()))
        while chunk := list(islice(left, _CHUNK)):
            yield JournalEntry(
                kind="revoke",
                id=new_task_id(),
                time=chunk[-1][1],
                sender="",
                facts={"ids": [task_id for task_id, _ in chunk]},
            )

    def _forget(self, task_id: str) -> None:
        if self._revoked.pop(task_id, None) is not None:
            self._terminated.discard(key_of(task_id, 0))

    def _is_old(self, time: float) -> bool:
        return self._clock.now().timestamp() - time > self._max_age

    def _drop_surplus(self) -> None:
        while len(self._revoked) > self._maximum:
            self._forget(next(iter(self._revoked)))
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "more than %d tasks are revoked: the oldest revocations are forgotten", self._maximum,
                    extra={"action": "revocations"},
                )  # fmt: skip
        while self._revoked and self._is_old(next(iter(self._revoked.values()))):
            self._forget(next(iter(self._revoked)))
