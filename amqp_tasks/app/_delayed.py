"""What waits in the broker for its time: the index of delayed tasks, read; see `docs/explanation/delay.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from amqp_tasks.app._entries import read_stream
from amqp_tasks.app._given import several
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import (
    DELAYED_NAME,
    JOURNAL_NAME,
    DelayedTask,
    JournalEntry,
    fact_texts,
    noted_tasks,
)

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("Delayed",)


class Delayed:
    """Lists delayed tasks. Looking changes nothing. Thread safety: any thread."""

    def __init__(self, app: App) -> None:
        self._app = app

    def find(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        task: str | None = None,
        queue: str | None = None,
        limit: int | None = None,
    ) -> list[DelayedTask]:
        """The tasks that wait for their `countdown` or `eta`, retries and snoozes among them, the next one first.

        Those that are revoked are listed until they are due; marked are those that are revoked by their ids, as the index knows no
        stamps. Reads the whole index.

        Args:
            ids: only these, one or several; None: all.
            task: only tasks of this name; `*` and `?` stand for any text and any character.
            queue: only those that go to this queue by its name.
            limit: at most so many; None: all.

        Raises:
            ConfigurationError: the broker has no index, as nobody who delays tasks has `task_delayed_index` on; or an id is no text.
            BrokerConnectionError, BrokerOperationError: the broker cannot be asked, or went away.
        """
        transport = self._app.transport
        noted = _Noted(set(several(ids, "a task id")) if ids is not None else None)
        if read_stream(transport, DELAYED_NAME, noted.learn, keys=transport.keys) is None:
            raise ConfigurationError(
                "the broker has no index of delayed tasks: set task_delayed_index=True where tasks are called and run"
            )
        revoked = _Revoked()
        read_stream(transport, JOURNAL_NAME, revoked.learn, keys=transport.keys)
        now = SYSTEM_CLOCK.now()
        found = [
            replace(each, is_revoked=each.id in revoked.ids)
            for each in noted.tasks(now)
            if (task is None or fnmatchcase(each.task, task))
            and (queue is None or (each.exchange, each.routing_key) == ("", queue))
        ]
        return sorted(found, key=lambda each: each.due)[:limit]


class _Noted:
    """What the entries of the index add up to: of each id the one with the latest time counts, wherever it stands.

    A bulk is noted at its end, after what its first tasks have come to meanwhile, and a note that the broker returned is sent again.
    Nothing leaves the wheel before it is due, a revoked task neither: of an id that waits more than once, also where the one that was
    sent last is due first, the one that waits longest is listed.
    """

    def __init__(self, wanted: set[str] | None) -> None:
        self._wanted, self._began = wanted, SYSTEM_CLOCK.now()
        self._latest: dict[str, DelayedTask] = {}

    def learn(self, entry: JournalEntry) -> None:
        for task in noted_tasks(entry):
            if self._wanted is None or task.id in self._wanted:
                known = self._latest.get(task.id)
                if task.due > (known.due if known is not None else self._began):
                    self._latest[task.id] = task

    def tasks(self, now: datetime) -> Sequence[DelayedTask]:
        # What is due has left the wheel, so an entry needs no other that takes it back.
        return [task for task in self._latest.values() if task.due > now]


class _Revoked:
    """The ids that the journal says are revoked."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def learn(self, entry: JournalEntry) -> None:
        if entry.kind == "revoke":
            self.ids.update(fact_texts(entry, "ids"))
        elif entry.kind == "unrevoke":
            self.ids.difference_update(fact_texts(entry, "ids"))
