"""Looking after processes that hang: beyond the hard time limit of a task, though they are to terminate one, or altogether."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._job import name_of
from amqp_tasks.worker._limits import KILL_AFTER

if TYPE_CHECKING:
    from amqp_tasks.worker._asks import Answers
    from amqp_tasks.worker._children import ChildProcess
    from amqp_tasks.worker._loop import Loop
    from amqp_tasks.worker._news import News
    from amqp_tasks.worker._records import RecordTable

__all__ = ("Patrol",)

logger = logging.getLogger(__name__)

_PERIOD = 0.5
"""Seconds between two looks."""
_NEWS_LEAD = 0.25
"""Seconds between what the journal says of a hung process and its end: other nodes read it meanwhile."""


class Patrol:
    """Life: 1. made; 2. `start`; it looks for as long as the loop runs. Owner: the supervisor's loop.

    Args:
        processes: those there are at each look, by serial; only read.
        records: what their slots run, and their signs of life.
        hung_timeout: seconds without such a sign after which a process that does not work is killed; None: never.
        is_terminated: whether the run with a key is to be ended.
        answers: told of what is beyond its limit.
        news: tells other nodes, before a process is killed.
        loop: of the supervisor.
        on_look: called at the end of each look.
    """

    def __init__(
        self,
        *,
        processes: Mapping[int, ChildProcess],
        records: RecordTable,
        hung_timeout: float | None,
        is_terminated: Callable[[str], bool],
        answers: Answers,
        news: News,
        loop: Loop,
        on_look: Callable[[], None],
    ) -> None:
        self._processes, self._records, self._is_terminated = processes, records, is_terminated
        self._answers, self._news, self._loop, self._on_look = answers, news, loop, on_look
        self._silent_looks = None if hung_timeout is None else max(1, math.ceil(hung_timeout / _PERIOD))

    def start(self) -> None:
        """Look now and then."""
        self._loop.call_later(_PERIOD, self._look)

    def must_have_ended(self, process: ChildProcess, *, by: float) -> tuple[list[str], list[str]]:
        """Keys of what it runs, or ran to its death, that was to be terminated, and of the rest that was to have ended `by` a
        monotonic time."""
        records = self._records.of_process(process.index)
        terminated = [key for key in records.terminable() if self._is_terminated(key)]
        return terminated, [key for key in records.overdue(by) if key not in terminated]

    def _look(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        for process in self._processes.values():
            if process.is_killed:
                continue
            terminated, overdue = self.must_have_ended(process, by=now - KILL_AFTER)
            if overdue:
                self._answers.time_out(overdue)
                self._kill(process, "beyond the time limit of", overdue[0])
            elif process.is_late_to_terminate(now, is_wanted=bool(terminated)):
                self._kill(process, "though it is to terminate", terminated[0])
            elif self._silent_looks is not None:
                self._feel(process, self._silent_looks)
        self._answers.look()
        self._news.send()
        self._loop.call_later(_PERIOD, self._look)
        self._on_look()

    def _feel(self, process: ChildProcess, looks: int) -> None:
        """Kill it when it hangs; what its slots run is charged, as that is no end that we had decided on."""
        process.pulse.look(self._records.of_process(process.index).last_sign)
        is_hung = process.pulse.is_hung(looks, _PERIOD)
        if is_hung is False:
            return
        logger.error(
            "process %d has given no sign of life for %g s %s; see worker_hung_timeout, and give tasks that may hang a time_limit",
            process.pid, looks * _PERIOD, "and is killed" if is_hung else "and may hang: end it if it does not work",
            extra={"action": "hung"},
        )  # fmt: skip
        if is_hung:
            process.signal(signal.SIGKILL)

    def _kill(self, process: ChildProcess, how: str, key: str) -> None:
        logger.error(
            "process %d is killed, as it hangs %s task %s", process.pid, how, name_of(key),
            extra={"action": "hung", "task_id": name_of(key)},
        )  # fmt: skip
        process.is_killed = True
        # First, or the redelivery would be on another node before the news.
        self._news.send(partial(self._kill_soon, process))

    def _kill_soon(self, process: ChildProcess) -> None:
        self._loop.call_later(_NEWS_LEAD, partial(self._kill_if_there, process))

    def _kill_if_there(self, process: ChildProcess) -> None:
        if process.serial in self._processes:
            process.kill()
