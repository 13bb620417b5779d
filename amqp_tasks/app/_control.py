"""What is said to all workers, now and later: `app.control`."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable
from typing import TYPE_CHECKING

from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import check_task_id

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("Control",)

_CHUNK = 200
"""Ids of one entry: together they stay below the size of an entry, however long they are."""


class Control:
    """Speaks to all workers by the journal, so that those hear it too that are away. See `docs/explanation/journal.md`.

    Thread safety: any thread.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def revoke(
        self,
        task_id: str | Iterable[str],
        terminate: bool = False,
        signal: str | int = "SIGTERM",
        *,
        timeout: float | None = None,
    ) -> None:
        """Have tasks not run, wherever they wait: in a queue, for their `eta`, for a retry, in a worker.

        Who waits for one gets `TaskRevokedError`. A task that runs goes on, unless it is to be terminated. Workers heed it for
        `worker_journal_max_age`, restarts included. Returns when the broker has confirmed it; again is harmless.

        Args:
            task_id: one id or several.
            terminate: end those that run, with their process; only the pool `prefork` can.
            signal: what the process of a task that is terminated gets first, if the task has a handler for it: a name or a number.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            NotSent, SendUnknown: it was not, or may not have been, stored.
            ConfigurationError: an id that no task can have, or an unknown signal.
            TopologyMismatch, BrokerConnectionError, BrokerOperationError: the journal cannot be declared.
        """
        name = _signal_name(signal)
        self._write("revoke", task_id, timeout, terminate=bool(terminate), signal=name)

    def unrevoke(self, task_id: str | Iterable[str], *, timeout: float | None = None) -> None:
        """Let tasks that were revoked run again. What was settled as revoked stays so.

        Args:
            task_id: one id or several.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            as `revoke`.
        """
        self._write("unrevoke", task_id, timeout)

    def terminate(
        self, task_id: str | Iterable[str], signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """The same as `revoke` with `terminate=True`."""
        self.revoke(task_id, terminate=True, signal=signal, timeout=timeout)

    def _write(self, kind: str, task_id: str | Iterable[str], timeout: float | None, **facts: object) -> None:
        ids = list(dict.fromkeys((task_id,) if isinstance(task_id, str) else task_id))
        for each in ids:
            check_task_id(each)
        if not ids:
            return
        writer = JournalWriter(self._app.transport, self._app.settings)
        chunks = [ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK)]
        writer.write([writer.entry(kind, ids=chunk, **facts) for chunk in chunks], timeout=timeout)


def _signal_name(signal: str | int) -> str:
    try:
        if isinstance(signal, int):
            return signals.Signals(signal).name
        name = signal.upper()
        return signals.Signals[name if name.startswith("SIG") else f"SIG{name}"].name
    except (ValueError, KeyError) as exc:
        raise ConfigurationError(
            f"unknown signal {signal!r}: give a name such as 'SIGTERM', or a number of this system"
        ) from exc
