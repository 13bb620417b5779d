"""The rate limits of a node: a bucket for each task, in memory that its processes share.

Made by whoever starts the node, before it forks; it goes with the node. A process that wants to change a bucket takes a lock that
the kernel releases when the process dies, whatever it was doing. A bucket is written in one go; what a dying process may leave
half written is at worst a turn that nobody takes.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import astuple
from typing import TYPE_CHECKING

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import DeadLetterReason, TokenPlan, token_plan
from amqp_tasks.settings._rate import per_second
from amqp_tasks.worker._bucket import Bucket

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.clock import Clock
    from amqp_tasks.message import JournalEntry

__all__ = ("NOT_NOW", "RateLimitChanges", "RateLimits", "rates_of", "token_plans_of")

NOT_NOW = 0.05
"""Seconds after which to ask again when the lock was not to be had: its holder was stopped or starved at a bad moment."""
_PAUSE, _TRIES, _PATIENT_TRIES = 0.0001, 20, 2000
_ANY = struct.Struct("=q")
_BUCKET = struct.Struct("=6d")


class RateLimits:
    """Thread safety: any thread of any process of the node.

    Args:
        rates: tasks per second by name, for all tasks that may ever be limited; 0: not now.
        clock: monotonic time, the same in all processes.
    """

    def __init__(self, rates: Mapping[str, float], *, clock: Clock) -> None:
        self._clock, self._first = clock, dict(rates)
        self._places = {name: _ANY.size + at * _BUCKET.size for at, name in enumerate(rates)}
        self._fd = _memory_file()
        os.ftruncate(self._fd, _ANY.size + len(rates) * _BUCKET.size)
        self._memory = mmap.mmap(self._fd, 0)
        # Locks of the kernel are a process's, not a thread's.
        self._threads = threading.Lock()
        for name, rate in rates.items():
            if rate:
                self.change(name, rate)

    @property
    def is_any(self) -> bool:
        """Whether any task is limited; all else can be left out when not."""
        found: int = _ANY.unpack_from(self._memory)[0]
        return found > 0

    def rate(self, task_name: str) -> float:
        """Tasks per second; 0.0: no limit."""
        place = self._places.get(task_name)
        interval = self._read(place).interval if place is not None else 0.0
        return 1 / interval if interval else 0.0

    def is_limited(self, task_name: str) -> bool:
        """Whether it has a limit now."""
        place = self._places.get(task_name)
        return place is not None and self._read(place).interval > 0

    def place(self, task_name: str, *, has_waited: bool) -> float:
        """Seconds until the turn of one more; see `Bucket.place`."""
        return self._with(task_name, lambda bucket, now: bucket.place(now, has_waited=has_waited))

    def start(self, task_name: str, turn: float) -> float:
        """0.0: it may start, and counts; else the seconds until one may. See `Bucket.start`."""
        return self._with(task_name, lambda bucket, now: bucket.start(now, turn))

    def began(self, task_name: str) -> None:
        """What may start begins only now."""

        def note(bucket: Bucket, now: float) -> float:
            bucket.began(now)
            return 0.0

        self._with(task_name, note)

    def change(self, task_name: str, rate: float | None) -> None:
        """Set another limit, for all processes, or with None the first one again; a name that is not known is not limited.

        Raises:
            TimeoutError: the lock was not to be had.
        """
        place = self._places.get(task_name)
        if place is None:
            return
        rate = self._first[task_name] if rate is None else rate
        interval = 1 / rate if rate else 0.0
        with self._locked(_PATIENT_TRIES) as is_mine:
            if not is_mine:
                raise TimeoutError(f"cannot change the rate limit of {task_name}: its table is in use")
            bucket = self._read(place)
            if bucket.interval == interval:
                # Said twice: the lines stay.
                return
            change = (interval > 0) - (bucket.interval > 0)
            bucket.change(interval)
            self._write(place, bucket)
            _ANY.pack_into(self._memory, 0, _ANY.unpack_from(self._memory)[0] + change)

    def close(self) -> None:
        """Let go of the memory; nothing is limited any more. Idempotent."""
        self._places.clear()
        if self._fd >= 0:
            self._memory.close()
            descriptor, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # a task in this process may have closed all there is
                os.close(descriptor)

    def _with(self, task_name: str, decide: Callable[[Bucket, float], float]) -> float:
        if not self.is_limited(task_name):
            return 0.0
        place = self._places[task_name]
        with self._locked() as is_mine:
            if not is_mine:
                return NOT_NOW
            bucket = self._read(place)
            decided = decide(bucket, self._clock.monotonic())
            self._write(place, bucket)
        return decided

    def _read(self, place: int) -> Bucket:
        return Bucket(*_BUCKET.unpack_from(self._memory, place))

    def _write(self, place: int, bucket: Bucket) -> None:
        _BUCKET.pack_into(self._memory, place, *astuple(bucket))

    @contextlib.contextmanager
    def _locked(self, tries: int = _TRIES) -> Generator[bool]:
        with self._threads:
            is_mine = self._try_lock(tries)
            try:
                yield is_mine
            finally:
                if is_mine:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _try_lock(self, tries: int) -> bool:
        # The I/O thread asks, too, and heartbeats are its: it must never wait for a process that somebody has stopped.
        for _ in range(tries):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_PAUSE)
            else:
                return True
        return False


class RateLimitChanges:
    """A register of the journal: limits that were set at run time. Told to the supervisor alone, as all share the table.

    Args:
        limits: of the node.
    """

    kinds = ("rate_limit",)
    is_for_processes = False

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits

    def apply(self, entry: JournalEntry) -> None:
        """See `Register.apply`."""
        task_name, rate = entry.facts.get("task"), entry.facts.get("rate")
        if isinstance(task_name, str) and (rate is None or _is_rate(rate)):
            self._limits.change(task_name, None if rate is None else per_second(rate))
        else:
            raise MalformedMessage(
                DeadLetterReason.BAD_BODY, "a 'rate_limit' entry has a text task and a rate"
            )

    def entries(self) -> Iterable[JournalEntry]:
        """See `Register.entries`."""
        return ()


def _is_rate(rate: object) -> bool:
    if not isinstance(rate, int | float | str) or isinstance(rate, bool):
        return False
    try:
        per_second(rate)
    except ValueError:
        return False
    return True


def rates_of(app: App, *, clock: Clock) -> RateLimits:
    """The limits of an app's tasks as they are declared: each task's own, else the setting.

    Args:
        app: finalized.
        clock: monotonic time.
    """
    settings = app.settings
    default = settings.task.default_rate_limit
    if settings.worker.disable_rate_limits:
        return RateLimits({}, clock=clock)
    rates = {
        name: per_second(default if task.rate_limit is None else task.rate_limit)
        for name, task in app.tasks.items()
    }
    if _is_one_process(app):
        rates = {name: _stricter(rate, app.tasks[name].cluster_rate_limit) for name, rate in rates.items()}
    return RateLimits(rates, clock=clock)


def token_plans_of(app: App) -> tuple[TokenPlan, ...]:
    """The tokens of an app's tasks that have a limit for all nodes together. Where all is one process, the node's own will do.

    Args:
        app: finalized.
    """
    if app.settings.worker.disable_rate_limits or _is_one_process(app):
        return ()
    rates = {name: per_second(task.cluster_rate_limit) for name, task in app.tasks.items()}
    return tuple(token_plan(name, rate) for name, rate in rates.items() if rate)


def _is_one_process(app: App) -> bool:
    scheme: str = app.settings.broker.url[0].scheme
    return scheme == "memory"


def _stricter(rate: float, other: float | str | None) -> float:
    return min(filter(None, (rate, per_second(other))), default=0.0)


def _memory_file() -> int:
    """A file without a name that goes with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("amqp-tasks-rates", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
