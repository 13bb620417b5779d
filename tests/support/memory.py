"""Whether processes grow: their memory, sampled over a run."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("SHORTEST", "Growth", "MemoryWatch", "watched_memory")

INTERVAL = 2.0
WARM_UP = 60.0
"""Seconds of a process's life that are not looked at, or a third of it if that is more: caches fill."""
SHORTEST = 2 * WARM_UP
"""Seconds of a run that allow a verdict: in less a leak is not to be told from the caches."""
LIMIT = 4.0 / 600
"""MiB in a second that a process may grow when it is warm."""
NOISE = 0.5
"""MiB by which a warm process that does not grow is seen to vary."""


def pss(pid: int) -> float | None:
    """MiB of memory of a process, shared pages by their share; None when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return None


@dataclass(frozen=True, slots=True)
class Growth:
    """By how many MiB a process grew in the seconds in which it was warm, by the line through its samples."""

    size: float
    seconds: float

    @property
    def is_too_much(self) -> bool:
        """Whether it leaks: what is noise in a minute is a lot when carried on over ten."""
        return self.size > max(NOISE, LIMIT * self.seconds)

    def __str__(self) -> str:
        return f"{self.size:+.2f} MiB in {self.seconds:.0f} s"


@dataclass(kw_only=True)
class MemoryWatch:
    """Samples by process id: (seconds, MiB). Written by the thread of `watched_memory`, read after its end."""

    samples: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, pids: Iterable[int], at: float) -> None:
        """Sample each process once."""
        for pid in pids:
            size = pss(pid)
            if size is not None:
                self.samples[pid].append((at, size))

    def growth(self, *, at_least: float) -> dict[int, Growth]:
        """How each process grew that was watched for so many seconds, which are more than `WARM_UP`."""
        return {
            pid: _growth(samples)
            for pid, samples in self.samples.items()
            if samples[-1][0] - samples[0][0] >= at_least
        }


def _growth(samples: list[tuple[float, float]]) -> Growth:
    begin, end = samples[0][0], samples[-1][0]
    warm = [(at, size) for at, size in samples if at - begin >= max(WARM_UP, (end - begin) / 3)]
    seconds = warm[-1][0] - warm[0][0]
    return Growth(statistics.linear_regression(*zip(*warm, strict=True)).slope * seconds, seconds)


@contextmanager
def watched_memory(pids: Callable[[], Iterable[int]]) -> Iterator[MemoryWatch]:
    """Sample the memory of these processes every other second while the block runs."""
    watch, is_over = MemoryWatch(), threading.Event()

    def sample() -> None:
        while not is_over.wait(INTERVAL):
            watch.take(pids(), time.monotonic())

    thread = threading.Thread(target=sample, name="memory")
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join(10)
