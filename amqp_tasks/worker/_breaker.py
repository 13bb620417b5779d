"""Circuit breakers: a queue whose tasks fail too often is left alone for a while; see `docs/explanation/worker.md`.

One for each queue of a process, which judges by what it has run itself.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.errors import Retry, TaskPredicate
from amqp_tasks.message import State, printable

if TYPE_CHECKING:
    from amqp_tasks.app._execution import Outcome

__all__ = ("MAX_PAUSE", "BreakerRules", "Breakers", "is_error")

logger = logging.getLogger(__name__)

MAX_PAUSE = 600.0
"""Seconds between two probes at most, unless the first pause is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    Attributes:
        ratio: of the last runs, above 0 to 1: so many errors open it; None: never.
        runs: how many runs are looked at; before there are so many nothing is judged.
        pause: seconds until the first probe; twice as long after each that fails.
    """

    ratio: float | None
    runs: int
    pause: float


class _State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(slots=True)
class _Breaker:
    pause: float
    state: _State = _State.CLOSED
    errors: deque[bool] = field(default_factory=deque[bool])


def is_error(outcome: Outcome) -> bool | None:
    """Whether a run failed; None where that says nothing about what the task works with."""
    exc = outcome.exception
    if exc is None or outcome.is_expected:
        return False
    if isinstance(exc, Retry):
        return True if exc.exc is not None else None
    says_nothing = outcome.is_invalid or outcome.state == State.REVOKED or isinstance(exc, TaskPredicate)
    return None if says_nothing else True


class Breakers:
    """Thread safety: any thread.

    Args:
        rules: see `BreakerRules`.
        call_later: runs something on the control thread after some seconds.
        on_change: called on the control thread when `queue_names` has changed.
    """

    def __init__(
        self,
        rules: BreakerRules,
        *,
        call_later: Callable[[float, Callable[[], None]], object],
        on_change: Callable[[], None],
    ) -> None:
        self._rules, self._call_later, self._on_change = rules, call_later, on_change
        self._lock = threading.Lock()
        self._breakers: dict[str, _Breaker] = {}
        self._is_over = False
        self.queue_names: frozenset[str] = frozenset()
        """Those that nothing is to be run of. Written by the control thread."""

    def observe(self, queue_name: str, outcome: Outcome) -> None:
        """A run of a task of this queue has ended."""
        ratio = self._rules.ratio
        if ratio is None or (has_failed := is_error(outcome)) is None:
            return
        with self._lock:
            breaker = self._breakers.setdefault(queue_name, _Breaker(self._rules.pause))
            # What ends while it is open had begun before.
            if breaker.state is _State.PROBING:
                self._judge_probe(queue_name, breaker, has_failed=has_failed)
            elif breaker.state is _State.CLOSED:
                breaker.errors.append(has_failed)
                if len(breaker.errors) > self._rules.runs:
                    breaker.errors.popleft()
                if (
                    len(breaker.errors) == self._rules.runs
                    and sum(breaker.errors) >= ratio * self._rules.runs
                ):
                    self._open(
                        queue_name,
                        breaker,
                        f"{sum(breaker.errors)} of its last {self._rules.runs} runs failed",
                    )

    def close(self) -> None:
        """Change nothing more: the process ends."""
        self._is_over = True

    def _judge_probe(self, queue_name: str, breaker: _Breaker, *, has_failed: bool) -> None:
        if has_failed:
            breaker.pause = min(2 * breaker.pause, max(MAX_PAUSE, self._rules.pause))
            self._open(queue_name, breaker, "the first run after a pause failed")
            return
        breaker.state, breaker.pause = _State.CLOSED, self._rules.pause
        logger.info(
            "queue %s is run again: its tasks succeed",
            printable(queue_name),
            extra={"action": "breaker_closed", "queue": queue_name},
        )

    def _open(self, queue_name: str, breaker: _Breaker, why: str) -> None:
        breaker.state = _State.OPEN
        breaker.errors.clear()
        logger.warning(
            "queue %s: %s; this process runs nothing of it for %g s",
            printable(queue_name), why, breaker.pause, extra={"action": "breaker_open", "queue": queue_name},
        )  # fmt: skip
        self._call_later(0.0, partial(self._leave_alone, queue_name))
        self._call_later(breaker.pause, partial(self._probe, queue_name, breaker))

    # On the control thread, so that the last change is the last one carried out.

    def _leave_alone(self, queue_name: str) -> None:
        self._change(self.queue_names | {queue_name})

    def _probe(self, queue_name: str, breaker: _Breaker) -> None:
        with self._lock:
            breaker.state = _State.PROBING
        self._change(self.queue_names - {queue_name})

    def _change(self, names: frozenset[str]) -> None:
        if not self._is_over:
            self.queue_names = names
            self._on_change()
