"""A process without a supervisor answers for itself: which of its runs are long ones, and what other nodes said of theirs.

See `docs/explanation/reliability.md`, "Longer than the consumer timeout".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._asks import Answers
from amqp_tasks.worker._claims import Claims
from amqp_tasks.worker._news import News

if TYPE_CHECKING:
    from amqp_tasks.app._journal import JournalWriter
    from amqp_tasks.worker._journal import Register
    from amqp_tasks.worker._loop import Loop
    from amqp_tasks.worker._records import ProcessRecords
    from amqp_tasks.worker._verdicts import Answer, Verdict

__all__ = ("Alone",)

_PERIOD = 0.5
"""Seconds between two looks at what runs, and at questions that could not be answered at once."""
_SELF = 0


class Alone:
    """The `Verdicts` of such a process. Life: 1. made; 2. `start`; 3. `close` tells that what is claimed may run elsewhere.

    Thread safety: `ask`, `tell_open`, `tell_finished` and `tell_refused` from any thread; the rest by the loop's owner, or while nobody runs it.

    Args:
        writer: tells other nodes.
        records: what its slots run.
        claim_after: seconds after which other nodes are told of a run; infinite: never.
        loop: of the process's control thread.
    """

    def __init__(
        self, writer: JournalWriter, records: ProcessRecords, *, claim_after: float, loop: Loop
    ) -> None:
        self._loop = loop
        self._news = News(writer, loop)
        claims = Claims(after=claim_after, tell=self._news.add, clock=SYSTEM_CLOCK)
        self._answers = Answers(reply=self._reply, tell=self._news.add, claims=claims, clock=SYSTEM_CLOCK)
        self._answers.joined(_SELF, records.running)
        self.registers: tuple[Register, ...] = (self._answers, claims)
        self._asked: dict[int, Answer] = {}
        self._number = 0

    def start(self) -> None:
        """Look now and then."""
        self._loop.call_later(_PERIOD, self._look)

    def close(self) -> None:
        """Let others run what has not ended; returns when the broker has that, or after some seconds."""
        self._answers.left(_SELF, None)
        self._news.send_last()

    def ask(self, task_ids: Sequence[str], on_answer: Answer) -> None:
        """See `Verdicts.ask`."""
        self._loop.call_soon(partial(self._ask, task_ids, on_answer))

    def tell_open(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_open`."""
        self._loop.call_soon(partial(self._tell_open, task_ids))

    def tell_finished(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_finished`."""
        self._loop.call_soon(partial(self._answers.tell_finished, _SELF, task_ids))

    def tell_refused(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_refused`."""
        self._loop.call_soon(partial(self._answers.tell_refused, _SELF, task_ids))

    # On the control thread.

    def _look(self) -> None:
        self._answers.look()
        self._answers.review()
        self._news.send()
        self._loop.call_later(_PERIOD, self._look)

    def _ask(self, task_ids: Sequence[str], on_answer: Answer) -> None:
        self._number += 1
        self._asked[self._number] = on_answer
        self._answers.ask(_SELF, self._number, task_ids)

    def _tell_open(self, task_ids: Sequence[str]) -> None:
        self._answers.tell_open(_SELF, task_ids)
        self._news.send()

    def _reply(self, _process: int, number: int, found: dict[str, Verdict]) -> None:
        self._asked.pop(number)(found)
