"""Which task runs in which slot, in memory that a process shares with its supervisor.

A record outlives its writer, however that died: it is how the supervisor knows whom to charge for a crash. One writer
(the slot's own thread) and one reader (the supervisor). The id is written before the flag is set and the flag is
cleared before the next id is written, so a reader of a dead process never sees half an id.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Protocol

__all__ = ("MAX_KEY", "NoRecords", "ProcessRecords", "RecordTable", "Records")

MAX_KEY = 320
"""Bytes: a task id is an AMQP short string (255), and retries and snoozes add their numbers."""
_HEAD = 3
_RECORD = _HEAD + MAX_KEY
_FREE, _RUNNING = 0, 1


class Records(Protocol):
    """What a slot says about itself."""

    def mark(self, slot: int, key: str) -> None:
        """Say that `slot` is about to run the task with this key."""

    def clear(self, slot: int) -> None:
        """Say that `slot` runs nothing."""


class NoRecords:
    """For pools in the supervisor's own process, where nobody is left to read them."""

    def mark(self, slot: int, key: str) -> None:
        """See `Records.mark`."""

    def clear(self, slot: int) -> None:
        """See `Records.clear`."""


class RecordTable:
    """Records of `processes` × `slots`. Made by the supervisor before it forks; anonymous, so it needs no clean-up."""

    def __init__(self, processes: int, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, max(1, processes * slots) * _RECORD)

    def of_process(self, index: int) -> ProcessRecords:
        """The part of one process."""
        return ProcessRecords(self._memory, index * self._slots * _RECORD, self._slots)


class ProcessRecords:
    """The records of one process."""

    __slots__ = ("_memory", "_offset", "_slots")

    def __init__(self, memory: mmap.mmap, offset: int, slots: int) -> None:
        self._memory, self._offset, self._slots = memory, offset, slots

    def mark(self, slot: int, key: str) -> None:
        """See `Records.mark`."""
        at = self._offset + slot * _RECORD
        encoded = key.encode("utf-8", "surrogatepass")[:MAX_KEY]
        length, memory = len(encoded), self._memory
        memory[at + 1 : at + _HEAD + length] = length.to_bytes(2, "big") + encoded
        memory[at] = _RUNNING

    def clear(self, slot: int) -> None:
        """See `Records.clear`."""
        self._memory[self._offset + slot * _RECORD] = _FREE

    def reset(self) -> None:
        """Clear all; by the supervisor, before the place is given to another process."""
        for slot in range(self._slots):
            self.clear(slot)

    def running(self) -> tuple[str, ...]:
        """The keys that are marked."""
        found: list[str] = []
        for slot in range(self._slots):
            at = self._offset + slot * _RECORD
            if self._memory[at] == _RUNNING:
                length = self._memory[at + 1] * 256 + self._memory[at + 2]
                raw = self._memory[at + _HEAD : at + _HEAD + length]
                with contextlib.suppress(UnicodeDecodeError):
                    # A living process may be writing it just now; then it names nothing.
                    found.append(raw.decode("utf-8", "surrogatepass"))
        return tuple(found)
