"""The law that every fault test ends with: nothing accepted is lost, nothing is unexpected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from support.eventually import eventually
from support.ledger import Ledger
from support.raw import RawClient, RawMessage

__all__ = ("Outcome", "assert_conserved", "keys_in", "reason_of")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of every task of a run, by the keys that the callers gave them.

    Attributes:
        submitted: a call was begun.
        accepted: the call returned.
        refused: it raised, and the message was certainly not stored.
        unknown: it raised, and the message may be stored.
        errors: what the refused and the unknown ones raised, by key.
        hung: it neither returned nor raised in time.
        executed: how often the task ran to its end.
        started: how often it was begun.
        dead: the dead-lettered ones, with the reason.
        queued: what was left in the queue.
        revoked: what the test revoked; it may have run all the same.
        expired: what the test let expire; likewise.
        unexplained: what ran more than once although no fault touched it.
        changed: what ran under more than one id.
        slowest_submit: seconds of the longest call.
        pauses: seconds from the end of each fault to the first task that was begun after it; None for never.
        values: calls whose result was collected.
        no_values: errors of those whose result did not come, by key.
        unanswered: calls whose result was waited for with neither.
        slowest_get: seconds of the longest wait of each caller that waits.
        statuses: exit statuses of all workers, in the order of their start; None for one that had to be killed.
        restarts: workers that ended by themselves and were started again.
    """

    submitted: frozenset[str]
    accepted: frozenset[str]
    refused: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    errors: Mapping[str, str] = field(default_factory=dict)
    hung: frozenset[str] = frozenset()
    executed: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    dead: Mapping[str, str] = field(default_factory=dict)
    queued: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    expired: frozenset[str] = frozenset()
    unexplained: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    slowest_submit: float = 0.0
    pauses: tuple[tuple[str, float | None], ...] = ()
    values: frozenset[str] = frozenset()
    no_values: Mapping[str, str] = field(default_factory=dict)
    unanswered: frozenset[str] = frozenset()
    slowest_get: Mapping[str, float] = field(default_factory=dict)
    statuses: tuple[int | None, ...] = ()
    restarts: int = 0

    @property
    def accounted(self) -> frozenset[str]:
        """Everything that is somewhere, or is known to have ended."""
        return frozenset(self.executed) | frozenset(self.dead) | self.queued

    @property
    def lost(self) -> frozenset[str]:
        """Accepted and nowhere."""
        return self.accepted - self.accounted - self.revoked - self.expired

    @property
    def unexpected(self) -> frozenset[str]:
        """Somewhere although nobody sent it, or although its call said that it was not stored."""
        return self.accounted - self.accepted - self.unknown - self.hung

    @property
    def duplicates(self) -> frozenset[str]:
        """Ran to the end more than once."""
        return frozenset(key for key, count in self.executed.items() if count > 1)

    @property
    def pause_after_return(self) -> float:
        """Seconds of the longest pause; infinite where nothing was begun any more."""
        return max((float("inf") if each is None else each for _, each in self.pauses), default=0.0)

    def violations(self) -> list[str]:
        """Every breach of the law, one line each."""
        found = {
            "lost": self.lost,
            "unexpected": self.unexpected,
            "neither accepted nor refused": self.hung,
            "waited for without an end": self.unanswered,
            "ran more than once, untouched by any fault": self.unexplained,
            "ran under several ids": self.changed,
        }
        return [f"{what}: {len(keys)}: {sorted(keys)[:10]}" for what, keys in found.items() if keys]

    def check(self) -> None:
        """Hold the law of conservation against it.

        Raises:
            AssertionError: it is broken; says by what.
        """
        assert not self.violations(), "\n".join(self.violations())


def reason_of(message: RawMessage) -> str:
    """Why a message lies among the dead letters."""
    headers = message.properties.headers
    assert headers is not None
    return str(headers["x-error-reason"])


def key_of(message: RawMessage) -> str:
    """The first argument of a task message, Celery's or Dramatiq's."""
    body = json.loads(message.body)
    return str((body["args"] if isinstance(body, dict) else body[0])[0])


def messages_in(raw: RawClient, queue: str) -> list[RawMessage]:
    """The messages of a queue; takes them out."""
    # A queue without a leader, as a killed node may leave it for a while, would block a basic.get.
    return raw.drain(queue) if raw.depth(queue) > 0 else []


def keys_in(raw: RawClient, queue: str) -> list[str]:
    """The first argument of each task message in a queue; takes them out."""
    return [key_of(message) for message in messages_in(raw, queue)]


def assert_conserved(
    sent: Collection[str], ledger: Ledger, raw: RawClient, *, queue: str = "work", within: float = 5.0
) -> None:
    """Each key that was sent is done, dead or queued, and no other key is anywhere. Ends with empty queues.

    Call it when nothing consumes any more.
    """
    left: set[str] = set()
    all_sent = frozenset(sent)

    def settled() -> None:
        left.update(keys_in(raw, queue), keys_in(raw, f"{queue}.dead"))
        Outcome(
            submitted=all_sent, accepted=all_sent, executed=ledger.counts("done"), queued=frozenset(left)
        ).check()

    eventually(settled, within=within)
