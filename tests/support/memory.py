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

__all__ = ("MemoryWatch", "watched_memory")

INTERVAL = 2.0
WARM_UP = 1 / 3
"""The part of a process's life that is not looked at: caches fill."""


def pss(pid: int) -> float | None:
    """MiB of memory of a process, shared pages by their share; None when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return None


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

    def growth(self, *, at_least: float) -> dict[int, float]:
        """MiB by which each process that was watched for so many seconds grows in ten minutes, its beginning left out."""
        found: dict[int, float] = {}
        for pid, samples in self.samples.items():
            if samples[-1][0] - samples[0][0] >= at_least:
                warm = samples[int(len(samples) * WARM_UP) :]
                slope = statistics.linear_regression(*zip(*warm, strict=True)).slope
                found[pid] = slope * 600
        return found


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
