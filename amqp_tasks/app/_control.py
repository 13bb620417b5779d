"""What is said to all workers, now and later: `app.control`."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from amqp_tasks.app._given import several
from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.errors import ConfigurationError, UnknownQueue
from amqp_tasks.message import check_stamps, check_task_id, check_task_name, stamp_values
from amqp_tasks.settings._rate import RATE_FORM, per_second

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("Control",)

_T = TypeVar("_T")
_MAX_STAMP = 255
_CHUNK = 200
"""Ids or names of one entry: together they stay below the size of an entry, however long they are."""


_NO_ANSWERS = "workers answer no questions yet; `amqp-tasks queues` tells what waits and who consumes"
_NO_SLOTS = "the number of slots is fixed; start the worker with another -c"
_CELERYS = {
    "add_consumer": "start a worker with -Q, or resume the queue",
    "autoscale": _NO_SLOTS,
    "broadcast": "workers take no commands but those that this has as methods",
    "cancel_consumer": "pause the queue",
    "discard_all": "use `amqp-tasks purge`",
    "inspect": _NO_ANSWERS,
    "ping": _NO_ANSWERS,
    "pool_grow": _NO_SLOTS,
    "pool_restart": "send HUP to the worker",
    "pool_shrink": _NO_SLOTS,
    "purge": "use `amqp-tasks purge`",
    "shutdown": "send TERM to the worker",
    "time_limit": "set time_limit and soft_time_limit of the task, or task_annotations",
}
"""What Celery's control has besides, and what to do instead."""


class Control:
    """Speaks to all workers by the journal, so that those hear it too that are away. See `docs/explanation/journal.md`.

    A worker may refuse, by its settings `worker_accept_commands` and `worker_enable_remote_control`; who speaks is not told of that.

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

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        terminate: bool = False,
        signal: str | int = "SIGTERM",
        *,
        timeout: float | None = None,
    ) -> None:
        """The same as `revoke` for all tasks with one of these stamps, those that are called later included.

        Args:
            headers: by name the value, or several of which one is enough; see `Signature.stamp`.
            terminate: end those that run. A process that does not react to it goes on, unlike with ids.
            signal: as of `revoke`.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            ConfigurationError: a name or value that no stamp can have, or an unknown signal.
            NotSent, SendUnknown, TopologyMismatch, BrokerConnectionError, BrokerOperationError: as `revoke`.
        """
        facts = {"terminate": bool(terminate), "signal": _signal_name(signal)}
        self._write_entries(
            "revoke-stamps", timeout, *({"stamps": each, **facts} for each in _parts(headers))
        )

    def unrevoke_by_stamped_headers(
        self, headers: Mapping[str, Any], *, timeout: float | None = None
    ) -> None:
        """Let tasks with these stamps run again; arguments and errors as `revoke_by_stamped_headers`."""
        self._write_entries("unrevoke-stamps", timeout, *({"stamps": each} for each in _parts(headers)))

    def terminate(
        self, task_id: str | Iterable[str], signal: str | int = "SIGTERM", *, timeout: float | None = None
    ) -> None:
        """The same as `revoke` with `terminate=True`."""
        self.revoke(task_id, terminate=True, signal=signal, timeout=timeout)

    def pause(self, queue_name: str | Iterable[str], *, timeout: float | None = None) -> None:
        """Have no worker run anything more of these queues until `resume`; calls are accepted and wait there.

        What runs ends as usual; what workers had fetched goes back. Workers heed it for `worker_journal_max_age`, restarts of
        workers and broker included. Returns when the broker has confirmed it; again is harmless.

        Args:
            queue_name: one name or several.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            UnknownQueue: neither the app nor the broker knows it; nothing is paused.
            ConfigurationError: a name that is no text.
            NotSent, SendUnknown: it was not, or may not have been, stored.
            TopologyMismatch, BrokerConnectionError, BrokerOperationError: the journal cannot be declared.
        """
        names = several(queue_name, "a queue name")
        for name in names:
            self._check_queue(name)
        self._write_entries("pause", timeout, *({"queues": chunk} for chunk in _chunks(names)))

    def resume(self, queue_name: str | Iterable[str], *, timeout: float | None = None) -> None:
        """Have workers run tasks of these queues again; one that is not paused is fine.

        Args:
            queue_name: one name or several.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            as `pause`, except UnknownQueue: a queue may have been deleted since.
        """
        self._write_entries(
            "resume", timeout, *({"queues": chunk} for chunk in _chunks(several(queue_name, "a queue name")))
        )

    def rate_limit(
        self, task_name: str, rate_limit: float | str | None, *, timeout: float | None = None
    ) -> None:
        """Set the rate limit of a task in all workers, now and when they start, until another call says otherwise.

        Args:
            task_name: its name; workers that do not have the task pass over it.
            rate_limit: `"10/s"`, `"10/m"`, `"10/h"` or a number per second; 0: no limit; None: as the task and the settings say.
            timeout: seconds for the whole; None: `task_publish_timeout`.

        Raises:
            ConfigurationError: no rate, or a name that no task can have.
            NotSent, SendUnknown: it was not, or may not have been, stored.
            TopologyMismatch, BrokerConnectionError, BrokerOperationError: the journal cannot be declared.
        """
        check_task_name(task_name)
        try:
            per_second(rate_limit)
        except ValueError as exc:
            raise ConfigurationError(f"rate limit {rate_limit!r:.80}: expected {RATE_FORM}") from exc
        self._write_entries("rate_limit", timeout, {"task": task_name, "rate": rate_limit})

    if not TYPE_CHECKING:  # for type checkers a class with `__getattr__` has every name

        def __getattr__(self, name: str) -> Any:
            hint = f", which is Celery's: {_CELERYS[name]}" if name in _CELERYS else ""
            raise AttributeError(f"'Control' object has no attribute {name!r}{hint}", name=name, obj=self)

    def _check_queue(self, name: str) -> None:
        topology = self._app.topology
        if topology.queue(name) is None and self._app.transport.queue_status(name) is None:
            raise UnknownQueue(name, known=tuple(topology.queue_names))

    def _write(self, kind: str, task_id: str | Iterable[str], timeout: float | None, **facts: object) -> None:
        ids = several(task_id, "a task id")
        for each in ids:
            check_task_id(each)
        self._write_entries(kind, timeout, *({"ids": chunk, **facts} for chunk in _chunks(ids)))

    def _write_entries(self, kind: str, timeout: float | None, *facts: Mapping[str, object]) -> None:
        if facts:
            writer = JournalWriter(self._app.transport, self._app.settings)
            writer.write([writer.entry(kind, each) for each in facts], timeout=timeout)


def _parts(stamps: Mapping[str, Any]) -> list[dict[str, list[Any]]]:
    """Stamps as several entries say them, each below the size of an entry."""
    check_stamps(stamps)
    values = {name: stamp_values(value) for name, value in stamps.items()}
    for name, each in values.items():
        if any(isinstance(value, str) and len(value) > _MAX_STAMP for value in each):
            raise ConfigurationError(
                f"a value of stamp {name!r} has more than {_MAX_STAMP} characters: tasks are not revoked by such"
            )
    return [{name: chunk} for name, each in values.items() for chunk in _chunks(each)]


def _chunks(names: list[_T]) -> list[list[_T]]:
    return [names[at : at + _CHUNK] for at in range(0, len(names), _CHUNK)]


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
