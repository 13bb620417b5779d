"""Which queues are paused: what the journal's `pause` and `resume` entries add up to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.errors import QueueNotRunning
from amqp_tasks.message import JOURNAL_NAME, JournalEntry, fact_texts, new_task_id
from amqp_tasks.worker._commands import Commands
from amqp_tasks.worker._journal import JournalFollower, JournalState

if TYPE_CHECKING:
    from amqp_tasks.app import App

__all__ = ("PausedQueues", "read_paused_queues")


class PausedQueues:
    """A register of the journal; bounded, as it heeds only those that are asked for.

    Thread safety: `names` from any thread; the rest by the owner only.

    Args:
        of: names of the queues that matter.
    """

    kinds = ("pause", "resume")
    is_for_processes = True

    def __init__(self, of: Collection[str]) -> None:
        self._of = frozenset(of)
        self.names: frozenset[str] = frozenset()

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        named = self._of.intersection(fact_texts(entry, "queues"))
        self.names = self.names | named if entry.kind == "pause" else self.names - named

    def entries(self) -> Iterator[JournalEntry]:
        """See `Register.entries`."""
        if self.names:
            facts = {"queues": sorted(self.names)}
            yield JournalEntry(kind="pause", id=new_task_id(), time=0.0, sender="", facts=facts)


def read_paused_queues(app: App, of: Collection[str]) -> frozenset[str] | None:
    """Which of these queues are paused, by the journal as it stands; None when it could not be read to its end.

    Raises:
        BrokerConnectionError, BrokerOperationError: the broker cannot be asked.
    """
    try:
        if app.transport.queue_status(JOURNAL_NAME) is None:
            return frozenset()
    except QueueNotRunning:
        return None
    paused = PausedQueues(of)
    state = JournalState((paused,))

    def on_entries(entries: Sequence[JournalEntry]) -> None:
        state.learn(entries)

    writer = JournalWriter(app.transport, app.settings)
    follower = JournalFollower(
        app.transport,
        writer,
        on_entries=on_entries,
        call_later=_never,
        commands=Commands.of(app.settings.worker),
    )
    follower.start()
    try:
        return paused.names if follower.wait_until_read() else None
    finally:
        follower.close()


def _never(seconds: float, callback: object) -> None:
    """Nothing is followed beyond the present."""
