"""Which long runs go on where: what keeps a node from starting the redelivery of a task that runs on another one.

The states and the rule for each failure: `docs/explanation/reliability.md`, "Longer than the consumer timeout".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import DeadLetterReason, JournalEntry, fact_text, fact_texts, new_task_id
from amqp_tasks.worker._verdicts import MAX_IDS, RecentKeys

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock

__all__ = ("BEAT", "CLAIM", "LEASE", "RELEASE", "SETTLED_AFTER", "Claims")

CLAIM, RELEASE = "claim", "release"
BEAT = 60.0
"""Seconds between the entries of a supervisor whose node has long runs."""
LEASE = 180.0
"""Seconds after the last entry of a supervisor for which others believe that it lives."""
SETTLED_AFTER = 60.0
"""Seconds after the end of a run for which nobody has said that its ack may be lost, until it is taken for settled."""


@dataclass(slots=True)
class _Run:
    process: int
    began: float
    seen: float
    is_claimed: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    """The last that a node has said of a run: its how manieth word it was, and whether the run goes on."""

    number: int
    is_running: bool


class Claims:
    """The long runs of this node, and of others. Thread safety: the supervisor's loop only.

    Args:
        after: seconds after which a run is a long one; infinite: never.
        tell: adds an entry to the journal: kind, id, facts.
        clock: time.
    """

    kinds = (CLAIM, RELEASE)
    is_for_processes = False

    def __init__(
        self, *, after: float, tell: Callable[[str, str, dict[str, Any]], None], clock: Clock
    ) -> None:
        self._after, self._tell, self._clock = after, tell, clock
        # A node that is started anew under its name is another one: it knows nothing of these runs.
        self._id = new_task_id()
        self._runs: dict[str, _Run] = {}
        self._told = -math.inf
        self._claimed = RecentKeys(clock=clock)
        self._said = 0
        self._words: OrderedDict[str, dict[str, _Word]] = OrderedDict()  # by run and node
        self._heard: dict[str, float] = {}
        self._finished, self._refused = RecentKeys(clock=clock), RecentKeys(clock=clock)

    # This node's.

    def look(self, places: Iterable[tuple[int, Collection[str]]]) -> None:
        """Note what each process has now, claim the long runs, and say from time to time that we live."""
        now, fresh = self._clock.monotonic(), list[str]()
        for process, keys in places:
            for key in keys:
                run = self._runs.setdefault(key, _Run(process, now, now))
                run.process, run.seen = process, now
                if not run.is_claimed and now - run.began >= self._after:
                    run.is_claimed = True
                    fresh.append(key)
        self._forget(now)
        is_beat_due = now - self._told >= BEAT and any(run.is_claimed for run in self._runs.values())
        if fresh or is_beat_due:
            self._say(fresh)

    def _forget(self, now: float) -> None:
        gone = {key: run for key, run in self._runs.items() if run.seen < now}
        for key, run in gone.items():
            if not run.is_claimed:
                del self._runs[key]
        self._release(
            [key for key, run in gone.items() if run.is_claimed and now - run.seen >= SETTLED_AFTER]
        )

    def claim(self, process: int, keys: Collection[str]) -> None:
        """These runs of a process go on although the broker has taken back what they were delivered for."""
        now = self._clock.monotonic()
        for key in keys:
            run = self._runs.setdefault(key, _Run(process, now, now))
            run.is_claimed = True
        if keys:
            self._say(list(keys))

    def finished(self, keys: Collection[str]) -> None:
        """Their outcomes are stored, their acks perhaps lost."""
        self._release([key for key in keys if self._was_claimed(key)], is_finished=True)

    def refused(self, keys: Collection[str]) -> None:
        """They are over, the refusals of their messages perhaps lost."""
        self._release([key for key in keys if self._was_claimed(key)], is_refused=True)

    def _was_claimed(self, key: str) -> bool:
        # A run may be older than what is remembered of those that are gone.
        run = self._runs.get(key)
        return key in self._claimed or (run is not None and run.is_claimed)

    def left(self, process: int) -> None:
        """A process has ended: what it had and has not said to be finished may run elsewhere."""
        own = [key for key, run in self._runs.items() if run.process == process]
        claimed = [key for key in own if self._runs[key].is_claimed]
        for key in own:
            del self._runs[key]
        self._release(claimed)

    def _say(self, keys: list[str]) -> None:
        self._told = self._clock.monotonic()
        self._claimed.add(keys)
        self._write(CLAIM, {"keys": keys})

    def _release(self, keys: list[str], *, is_finished: bool = False, is_refused: bool = False) -> None:
        for key in keys:
            self._runs.pop(key, None)
        if keys:
            self._write(RELEASE, {"keys": keys, "finished": is_finished, "refused": is_refused})

    def _write(self, kind: str, facts: dict[str, Any]) -> None:
        self._said += 1
        self._tell(kind, new_task_id(), {"by": self._id, "number": self._said, **facts})

    # Other nodes'.

    def is_elsewhere(self, key: str) -> bool:
        """Whether it runs on another node, as far as that has said and may be believed to live."""
        now = self._clock.monotonic()
        return any(
            word.is_running and now - self._heard.get(by, -math.inf) < LEASE
            for by, word in self._words.get(key, {}).items()
        )

    def is_finished(self, key: str) -> bool:
        """Whether another node has finished it, and only the ack was lost."""
        return key in self._finished

    def is_refused(self, key: str) -> bool:
        """Whether another node has refused it, and the broker may not have heard that."""
        return key in self._refused

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`. Time counts from the moment of reading: clocks of hosts differ, and a lease is short.

        The words of one node count in the order of their numbers: one that the broker returned, as the stream did not run yet,
        is sent again, and may then stand behind a later one.
        """
        by, keys, is_claim = fact_text(entry, "by"), fact_texts(entry, "keys"), entry.kind == CLAIM
        number, is_finished = entry.facts.get("number"), entry.facts.get("finished", False)
        is_refused = entry.facts.get("refused", False)
        if type(number) is not int or not isinstance(is_finished, bool) or not isinstance(is_refused, bool):
            raise MalformedMessage(
                DeadLetterReason.BAD_BODY,
                f"'number', 'finished' or 'refused' of a {entry.kind!r} entry is no number or boolean",
            )
        if by == self._id:
            return
        self._hear(by, keys, _Word(number, is_running=is_claim))
        if is_claim:
            self._heard[by] = self._clock.monotonic()
        elif is_finished or is_refused:
            noted = self._refused if is_refused else self._finished
            noted.add(keys, age=max(0.0, self._clock.now().timestamp() - entry.time))

    def _hear(self, by: str, keys: Iterable[str], word: _Word) -> None:
        for key in keys:
            words = self._words.setdefault(key, {})
            self._words.move_to_end(key)
            if by not in words or words[by].number < word.number:
                words[by] = word
        while len(self._words) > MAX_IDS:
            self._words.popitem(last=False)
        if len(self._heard) > MAX_IDS:
            alive = {by for words in self._words.values() for by in words}
            self._heard = {owner: heard for owner, heard in self._heard.items() if owner in alive}

    def entries(self) -> tuple[JournalEntry, ...]:
        """See `Register.entries`."""
        return ()
