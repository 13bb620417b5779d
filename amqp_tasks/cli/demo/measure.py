"""The measured part of the demo: a backlog on one queue, pairs of look-ups on both."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amqp_tasks.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from amqp_tasks.app import AsyncResult

__all__ = ("Latency", "Measurement")

_WORD = "import"
_INTERVAL = 0.01
_MAX_LOOK_UPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds from a call to its result in this process."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """Percentiles by nearest rank; None without values."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return cls(count=len(ordered), p50=_percentile(ordered, 0.50), p99=_percentile(ordered, 0.99))


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(slots=True)
class Measurement:
    """One run: a backlog is sent, look-ups go out while it stands, and all of it is waited for.

    Args:
        files: paths to index.
        queues: `hipri` and `lopri` to the names of the queues.
        keep_going: called while waiting; raises to end the run.
    """

    files: Sequence[str]
    queues: Mapping[str, str]
    keep_going: Callable[[int], None]
    results: Sequence[AsyncResult[dict[str, Any]]] = ()
    started_at: float = 0.0
    ended_at: float = 0.0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    # Written by the I/O thread under the condition.
    _done: int = 0
    _waits: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    # An AsyncResult that nobody holds is forgotten, and its result dropped.
    _look_ups: list[AsyncResult[list[int]]] = field(default_factory=list["AsyncResult[list[int]]"])

    def run(self) -> None:
        """Send the backlog, look up while it stands, wait for everything.

        Raises:
            Exception: whatever `keep_going` raises.
        """
        self._send_backlog()
        choice = random.Random(0)  # noqa: S311 - the same files in each run, no secret
        while self._done < len(self.files):
            if len(self._look_ups) < 2 * _MAX_LOOK_UPS:
                self._look_up(choice.choice(self.files))
            self._wait(lambda: self._done >= len(self.files), _INTERVAL)
        while not self._is_answered():
            self._wait(self._is_answered, _INTERVAL)

    def latency(self, queue: str) -> Latency | None:
        """Of the look-ups sent to `hipri` or `lopri`."""
        return Latency.of(self._waits.get(queue, []))

    @property
    def seconds(self) -> float:
        """From the first message of the backlog to its last result."""
        return self.ended_at - self.started_at

    def _send_backlog(self) -> None:
        from amqp_tasks.cli.demo.tasks import index_file

        self.started_at = SYSTEM_CLOCK.monotonic()
        self.results = list(index_file.map_async(self.files, queue=self.queues["lopri"]))
        for result in self.results:
            result.on_ready(self._note_done)

    def _look_up(self, path: str) -> None:
        from amqp_tasks.cli.demo.tasks import find_word

        for queue, queue_name in self.queues.items():
            sent_at = SYSTEM_CLOCK.monotonic()
            result = find_word.apply_async((path, _WORD), queue=queue_name)
            self._look_ups.append(result)
            result.on_ready(self._noting_wait(queue, sent_at))

    def _note_done(self, result: AsyncResult[dict[str, Any]]) -> None:
        with self._changed:
            self._done += 1
            self.ended_at = SYSTEM_CLOCK.monotonic()
            if self._done == len(self.files):
                self._changed.notify_all()

    def _noting_wait(self, queue: str, sent_at: float) -> Callable[[AsyncResult[list[int]]], None]:
        def note(result: AsyncResult[list[int]]) -> None:
            with self._changed:
                self._waits.setdefault(queue, []).append(SYSTEM_CLOCK.monotonic() - sent_at)
                self._changed.notify_all()

        return note

    def _is_answered(self) -> bool:
        return sum(map(len, self._waits.values())) >= len(self._look_ups)

    def _wait(self, is_over: Callable[[], bool], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(is_over, timeout=seconds)
        self.keep_going(self._done)
