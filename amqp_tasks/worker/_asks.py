"""The supervisor's answers about redelivered tasks; see `docs/explanation/worker.md`, "When a worker process dies"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import JournalEntry, fact_text, fact_texts, new_task_id
from amqp_tasks.worker._verdicts import UNKNOWN, CrashTable, RecentKeys, Verdict

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker._claims import Claims

__all__ = ("Answers", "Whereabouts")

WAIT_FOR_EXIT = 1.0
"""Seconds that an answer waits for the exit of the process which has the task in its record: the broker is quicker
with a redelivery than the system with a death notice."""

WAIT_FOR_NEWS = 0.25
"""Seconds that an answer about a task that has crashed before waits for the news of one more crash, on another node: the
broker is quicker with a redelivery than that node with its entry in the journal."""

CRASH, TIMED_OUT = "crash", "timed-out"


@dataclass(slots=True)
class Whereabouts:
    """Which tasks one living process has.

    Attributes:
        running: reads the keys in its shared record.
        open: the keys that it said it still has after it lost its connection.
    """

    running: Callable[[], Sequence[str]]
    open: set[str] = field(default_factory=set[str])


@dataclass(slots=True, kw_only=True)
class _Waiting:
    asker: int
    number: int
    keys: Sequence[str]
    asked: float


class Answers:
    """Pending questions and what they are answered from. Thread safety: the supervisor's loop only.

    Args:
        reply: sends an answer: asking process, number of its question, verdicts of the keys that are known.
        tell: lets other nodes know: kind, id and facts of an entry of the journal.
        claims: the long runs of this node and of others.
        clock: time.
    """

    kinds = (CRASH, TIMED_OUT)
    is_for_processes = False

    def __init__(
        self,
        *,
        reply: Callable[[int, int, dict[str, Verdict]], None],
        tell: Callable[[str, str, dict[str, Any]], None],
        claims: Claims,
        clock: Clock,
    ) -> None:
        self._reply, self._tell, self._claims, self._clock = reply, tell, claims, clock
        self._crashes = CrashTable(clock=clock)
        self._finished, self._refused = RecentKeys(clock=clock), RecentKeys(clock=clock)
        self._timed_out = RecentKeys(clock=clock)
        self._places: dict[int, Whereabouts] = {}
        self._waiting: list[_Waiting] = []

    def joined(self, process: int, running: Callable[[], Sequence[str]]) -> None:
        """A process was started."""
        self._places[process] = Whereabouts(running)

    def left(
        self, process: int, cause: str | None, overdue: Collection[str] = (), ended: Collection[str] = ()
    ) -> tuple[tuple[str, int], ...]:
        """A process has ended; charges what it ran unless `cause` is None. Returns keys with their number of crashes.

        What was `overdue` is not charged: whoever gets its redelivery answers that it has timed out. Nor is what was `ended`
        as somebody wished.
        """
        self.time_out(key for key in overdue if key not in self._timed_out)
        place = self._places.pop(process, None)
        charged: tuple[tuple[str, int], ...] = ()
        if place is not None and cause is not None:
            charged = tuple(
                (key, self._charge(key, cause))
                for key in place.running()
                if key not in overdue and key not in ended
            )
        self._claims.left(process)
        self._waiting = [question for question in self._waiting if question.asker != process]
        self.review()
        return charged

    def look(self) -> None:
        """To be called twice a second or so: long runs are claimed."""
        self._claims.look(
            (process, {*place.running(), *place.open}) for process, place in self._places.items()
        )

    def time_out(self, keys: Iterable[str]) -> None:
        """These have passed their hard limits, and whoever gets one again is to say so."""
        if found := list(keys):
            self._timed_out.add(found)
            self._tell(TIMED_OUT, new_task_id(), {"keys": found})

    def _charge(self, key: str, cause: str) -> int:
        crash_id = new_task_id()
        self._tell(CRASH, crash_id, {"key": key, "cause": cause})
        return self._crashes.charge(key, cause, crash_id)

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`. Our own entries come back, too, and change nothing."""
        age = max(0.0, self._clock.now().timestamp() - entry.time)
        if entry.kind == TIMED_OUT:
            self._timed_out.add(fact_texts(entry, "keys"), age=age)
        else:
            key = fact_text(entry, "key")
            self._crashes.charge(key, fact_text(entry, "cause"), entry.id, age=age)
        self.review()

    def entries(self) -> tuple[JournalEntry, ...]:
        """See `Register.entries`."""
        return ()

    def tell_open(self, process: int, keys: Iterable[str]) -> None:
        """A process still has these after it lost its connection."""
        if (place := self._places.get(process)) is not None:
            found = set(keys)
            place.open.update(found)
            self._claims.claim(process, found.intersection(place.running()))
        self.review()

    def tell_finished(self, process: int, keys: Sequence[str]) -> None:
        """These are finished, their acks perhaps lost."""
        self._over(process, keys)
        self._finished.add(keys)
        self._claims.finished(keys)
        self.review()

    def tell_refused(self, process: int, keys: Sequence[str]) -> None:
        """These are over, the refusals of their messages perhaps lost."""
        self._over(process, keys)
        self._refused.add(keys)
        self._claims.refused(keys)
        self.review()

    def _over(self, process: int, keys: Sequence[str]) -> None:
        if (place := self._places.get(process)) is not None:
            place.open.difference_update(keys)

    def ask(self, process: int, number: int, keys: Sequence[str]) -> None:
        """Answer at once, or when the process that seems to have one of the tasks has ended, or after a second."""
        self._waiting.append(_Waiting(asker=process, number=number, keys=keys, asked=self._clock.monotonic()))
        self.review()

    @property
    def next_deadline(self) -> float | None:
        """When `review` must be called at the latest."""
        return min((question.asked + WAIT_FOR_EXIT for question in self._waiting), default=None)

    def review(self) -> None:
        """Answer what can be answered now."""
        now = self._clock.monotonic()
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            waited = now - question.asked
            if waited < WAIT_FOR_EXIT and any(
                self._is_unclear(question, key, waited) for key in question.keys
            ):
                self._waiting.append(question)
            else:
                self._reply(question.asker, question.number, self._verdicts(question))

    def _is_unclear(self, question: _Waiting, key: str, waited: float) -> bool:
        if self._may_have_died(question.asker, key):
            return True
        # It kills processes: has it just killed one of another node?
        crashes = self._crashes.look_up(key)
        return bool(crashes.ids) and waited < WAIT_FOR_NEWS and crashes.heard < question.asked

    def _may_have_died(self, asker: int, key: str) -> bool:
        """A record names it, and its process did not say that it only lost its connection."""
        return not (key in self._finished or key in self._refused) and any(
            key in place.running() and key not in place.open
            for process, place in self._places.items()
            if process != asker
        )

    def _verdicts(self, question: _Waiting) -> dict[str, Verdict]:
        found = {key: self._verdict(question.asker, key) for key in question.keys}
        return {key: verdict for key, verdict in found.items() if verdict != UNKNOWN}

    def _verdict(self, asker: int, key: str) -> Verdict:
        crashes = self._crashes.look_up(key)
        return Verdict(
            crashes=len(crashes.ids),
            cause=crashes.cause,
            is_finished=key in self._finished or self._claims.is_finished(key),
            is_refused=key in self._refused or self._claims.is_refused(key),
            is_timed_out=key in self._timed_out,
            is_running=self._claims.is_elsewhere(key)
            or any(
                key in place.open or key in place.running()
                for process, place in self._places.items()
                if process != asker
            ),
        )
