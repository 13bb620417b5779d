"""A file to which tasks report, written by the tasks themselves: the truth about what ran."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.eventually import eventually

__all__ = ("Entry", "Ledger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One report.

    Attributes:
        event: what happened.
        key: to what: the key of a task, mostly.
        pid: the process that wrote it.
        at: when, in seconds of the machine's monotonic clock, which all its processes share.
        note: more about it.
    """

    event: str
    key: str
    pid: int
    at: float = 0.0
    note: str = ""


class Ledger:
    """Reports by any number of processes, in the order in which they were written.

    One `write` of a short line to a file opened with O_APPEND: atomic between processes on a local file system,
    and safe from the death of the writer once it returned, as the page is the kernel's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._lock = threading.Lock()
        self._known: list[Entry] = []
        self._tally: Counter[str] = Counter()
        self._offset = 0

    def record(self, event: str, key: str, note: str = "") -> None:
        """Add one report."""
        said = {"event": event, "key": key, "pid": os.getpid(), "at": time.monotonic(), "note": note}
        line = json.dumps(said) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def entries(self, event: str | None = None) -> list[Entry]:
        """All reports so far, or those of one event."""
        with self._lock:
            self._read_on()
            return [each for each in self._known if event is None or each.event == event]

    def _read_on(self) -> None:
        """Read what was added since the last time: a long run asks often."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._known.append(Entry(**json.loads(line)))
                self._tally[self._known[-1].event] += 1

    def total(self, event: str) -> int:
        """How many reports of one event there are; costs nothing in a long run."""
        with self._lock:
            self._read_on()
            return self._tally[event]

    def keys(self, event: str) -> list[str]:
        """The keys of one event, in order, with repeats."""
        return [each.key for each in self.entries(event)]

    def counts(self, event: str) -> Counter[str]:
        """How often each key had this event."""
        return Counter(self.keys(event))

    def wait_for(
        self, event: str, key: str | None = None, *, count: int = 1, within: float = 10.0
    ) -> list[Entry]:
        """Wait until an event (with that key) was reported `count` times; returns those reports.

        Raises:
            AssertionError: it was not, in time.
        """

        def enough() -> list[Entry]:
            found = [each for each in self.entries(event) if key is None or each.key == key]
            assert len(found) >= count, f"{event} {key or ''} reported {len(found)} times, {count} wanted"
            return found

        return eventually(enough, within)
