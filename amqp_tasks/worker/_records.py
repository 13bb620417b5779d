"""Which task runs in which slot, in memory that a process shares with its supervisor.

A record outlives its writer, however that died: it is how the supervisor knows whom to charge for a crash. One writer
(the slot's own thread) and one reader (the supervisor). The id is written before the flag is set and the flag is
cleared before the next id is written, so a reader of a dead process never sees half an id. The time by which a run with a
hard limit must have ended stands first, aligned, as it is read while it may be written. Behind all records stands, for each process,
when it gave its last sign of life; its control thread writes that.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

__all__ = ("MAX_KEY", "ProcessRecords", "RecordTable", "Records")

MAX_KEY = 352
"""Bytes: a task id is an AMQP short string (255), retries and snoozes add their numbers, and each key which message it is of."""
_TIME = struct.Struct("=d")
_FLAG, _LENGTH, _HEAD = 8, 9, 11
_RECORD = (_HEAD + MAX_KEY + 7) // 8 * 8
_FREE, _RUNNING, _ANSWERING = 0, 1, 2


class Records(Protocol):
    """What a slot says about itself."""

    def mark(self, slot: int, key: str) -> None:
        """Say that `slot` is about to run the task with this key."""

    def answer(self, slot: int) -> None:
        """Say that what `slot` is marked with has run, and that the slot answers for it: it is too late to terminate it."""

    def clear(self, slot: int) -> None:
        """Say that `slot` runs nothing."""

    def reclaim(self, is_open: Callable[[str], bool]) -> None:
        """Mark each slot that runs nothing with what it ran last, if that is open."""

    def limit(self, slot: int, due: float) -> None:
        """Say that what `slot` runs must have ended by `due` (monotonic seconds); 0: there is no such time."""

    def give_sign(self, now: float) -> None:
        """Say that the process lives (monotonic seconds); 0: it gives no more signs, as it ends."""


class RecordTable:
    """Records of `processes` × `slots`. Made by the supervisor before it forks; anonymous, so it needs no clean-up."""

    def __init__(self, processes: int, slots: int) -> None:
        self._slots = slots
        self._signs = processes * slots * _RECORD
        self._memory = mmap.mmap(-1, self._signs + max(1, processes) * _TIME.size)

    def of_process(self, index: int) -> ProcessRecords:
        """The part of one process."""
        sign_at = self._signs + index * _TIME.size
        return ProcessRecords(self._memory, index * self._slots * _RECORD, self._slots, sign_at)


class ProcessRecords:
    """The records of one process."""

    __slots__ = ("_memory", "_offset", "_sign_at", "_slots")

    def __init__(self, memory: mmap.mmap, offset: int, slots: int, sign_at: int) -> None:
        self._memory, self._offset, self._slots, self._sign_at = memory, offset, slots, sign_at

    def mark(self, slot: int, key: str) -> None:
        """See `Records.mark`."""
        at = self._offset + slot * _RECORD
        encoded = key.encode("utf-8", "surrogatepass")[:MAX_KEY]
        length, memory = len(encoded), self._memory
        memory[at + _LENGTH : at + _HEAD + length] = length.to_bytes(2, "big") + encoded
        memory[at + _FLAG] = _RUNNING

    def answer(self, slot: int) -> None:
        """See `Records.answer`."""
        self._memory[self._offset + slot * _RECORD + _FLAG] = _ANSWERING

    def clear(self, slot: int) -> None:
        """See `Records.clear`."""
        self._memory[self._offset + slot * _RECORD + _FLAG] = _FREE

    def reclaim(self, is_open: Callable[[str], bool]) -> None:
        """See `Records.reclaim`."""
        # Clearing leaves the key where it is; a slot that has run nothing yet has none.
        for at in self._places():
            if self._memory[at + _FLAG] == _FREE and any(is_open(key) for key in self._keys((at,))):
                self._memory[at + _FLAG] = _RUNNING

    def limit(self, slot: int, due: float) -> None:
        """See `Records.limit`."""
        _TIME.pack_into(self._memory, self._offset + slot * _RECORD, due)

    def give_sign(self, now: float) -> None:
        """See `Records.give_sign`."""
        _TIME.pack_into(self._memory, self._sign_at, now)

    def reset(self) -> None:
        """Forget all; by the supervisor, before the place is given to another process."""
        for slot in range(self._slots):
            self.clear(slot)
            # Its last key, too: the next process is not to be charged in the name of the one before (`reclaim`).
            at = self._offset + slot * _RECORD
            self._memory[at + _LENGTH : at + _HEAD] = bytes(_HEAD - _LENGTH)
            self.limit(slot, 0.0)
        self.give_sign(0.0)

    @property
    def last_sign(self) -> float:
        """When the process gave its last sign of life (monotonic seconds); 0: it gives none."""
        return self._time(self._sign_at)

    def running(self) -> tuple[str, ...]:
        """The keys that are marked, or that somebody else than the slot still answers for."""
        return self._keys(self._taken())

    def terminable(self) -> tuple[str, ...]:
        """Those of them that their slot does not answer for yet."""
        return self._keys(at for at in self._taken() if self._memory[at + _FLAG] != _ANSWERING)

    def overdue(self, now: float) -> tuple[str, ...]:
        """The keys of those that should have ended before `now`."""
        return self._keys(at for at in self._places() if 0.0 < self._time(at) <= now)

    def _time(self, at: int) -> float:
        time: float = _TIME.unpack_from(self._memory, at)[0]
        return time

    def _taken(self) -> Iterator[int]:
        return (at for at in self._places() if self._memory[at + _FLAG] != _FREE or self._time(at))

    def _places(self) -> range:
        return range(self._offset, self._offset + self._slots * _RECORD, _RECORD)

    def _keys(self, places: Iterable[int]) -> tuple[str, ...]:
        # Once each: where two slots are marked with one task, its process still dies once.
        found: dict[str, None] = {}
        for at in places:
            length = self._memory[at + _LENGTH] * 256 + self._memory[at + _LENGTH + 1]
            raw = self._memory[at + _HEAD : at + _HEAD + length]
            with contextlib.suppress(UnicodeDecodeError):
                # A living process may be writing it just now; then it names nothing.
                found[raw.decode("utf-8", "surrogatepass")] = None
        return tuple(found)
