"""The law of conservation over everything that the processes of a test have told: see `support.observing`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from support.conservation import Outcome
from support.eventually import eventually
from support.ledger import Entry, Ledger
from support.management import Management
from support.raw import RawClient

__all__ = ("Law", "Place")

WITHIN = 15.0
"""Seconds in which the broker has back what dead workers held, and has led all of its queues again."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A virtual host to look for tasks in.

    Attributes:
        url: of a node that is up.
        management: of one.
        vhost: its name.
    """

    url: str
    management: Management
    vhost: str

    def empty(self) -> None:
        """Take all messages out of all queues; what is taken is told."""
        queues = [each["name"] for each in self.management.queues(self.vhost) if each.get("type") != "stream"]
        with RawClient(urlsplit(self.url)._replace(path=f"/{quote(self.vhost, safe='')}").geturl()) as raw:
            for name in queues:
                # A queue without a leader, as a killed node may leave it for a while, would block a basic.get.
                if raw.depth(name) > 0:
                    raw.drain(name)


class Law:
    """Judges test after test by what was told since the last one.

    Args:
        ledger: to which it is told.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._judged = ledger, 0

    def forget(self) -> None:
        """Judge nothing of what was told so far."""
        self._judged = len(self._ledger.entries())

    def judge(self, place: Place | None, *, loses: Collection[str] = ()) -> None:
        """Hold the law against what was told, when neither workers nor callers are there any more.

        Args:
            place: where tasks may be left; None: what was left has been told of as taken.
            loses: ids of tasks that must be lost, as documented.

        Raises:
            AssertionError: it is broken; says by what.
        """
        begin = self._judged

        def is_kept() -> None:
            if place is not None:
                place.empty()
            outcome = outcome_of(self._ledger.entries()[begin:])
            assert set(loses) <= outcome.lost, f"not lost, of {sorted(loses)}: {sorted(outcome.lost)}"
            replace(outcome, accepted=outcome.accepted - set(loses)).check()

        try:
            if len(self._ledger.entries()) > begin:
                eventually(is_kept, WITHIN if place is not None else 0.0)
        finally:
            self.forget()


def outcome_of(entries: Sequence[Entry]) -> Outcome:
    """What became of every task id."""
    ids: dict[str, set[str]] = defaultdict(set)
    for each in entries:
        ids[each.event].add(each.key)
    sent = ids["sending"] | ids["put"]
    refused = ids["refused"] - ids["accepted"] - ids["unknown"]
    return Outcome(
        submitted=frozenset(sent),
        accepted=frozenset(ids["accepted"]),
        refused=frozenset(refused),
        # A process that was killed has perhaps sent what it has told nothing more of.
        unknown=frozenset(sent - ids["accepted"] - refused),
        # Of a step that was never sent, as one before it failed, its caller is told as well.
        executed=Counter(ids["ended"] | (ids["answered"] & sent)),
        queued=frozenset(ids["taken"]),
        revoked=frozenset(ids["revoked"]),
    )
