"""What a test must not leave behind: threads, child processes and sockets."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil

from support.eventually import wait_until

__all__ = ("Footprint", "expect_process", "forget_process")

GRACE = 3.0
_EXPECTED: set[int] = set()
_FDS = Path("/proc/self/fd")


def expect_process(pid: int) -> None:
    """Note a child process that outlives single tests, e.g. a broker."""
    _EXPECTED.add(pid)


def forget_process(pid: int) -> None:
    """The end of `expect_process`."""
    _EXPECTED.discard(pid)


def _threads() -> dict[int, str]:
    return {id(thread): repr(thread) for thread in threading.enumerate()}


def _library_processes() -> set[int | None]:
    """Processes that the standard library keeps until the interpreter ends."""
    return {
        getattr(resource_tracker._resource_tracker, "_pid", None),
        getattr(forkserver._forkserver, "_forkserver_pid", None),
    }


def _processes() -> dict[int, str]:
    found: dict[int, str] = {}
    expected = _EXPECTED | _library_processes()
    for child in psutil.Process().children():
        if child.pid not in expected:
            try:
                found[child.pid] = f"process {child.pid}: {' '.join(child.cmdline())} ({child.status()})"
            except psutil.NoSuchProcess:
                continue
    return found


def _sockets() -> dict[int, str]:
    """Open sockets by inode; where there is no /proc, none (CI runs on Linux)."""
    found: dict[int, str] = {}
    for file in _FDS.iterdir() if _FDS.is_dir() else ():
        try:
            target = str(file.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found[int(target[8:-1])] = f"socket fd {file.name}"
    return found


@dataclass(frozen=True, slots=True)
class Footprint:
    """The threads, child processes and sockets that are there at one moment."""

    threads: dict[int, str]
    processes: dict[int, str]
    sockets: dict[int, str]

    @classmethod
    def now(cls) -> Footprint:
        """What is there now."""
        return cls(_threads(), _processes(), _sockets())

    def leaked(self) -> list[str]:
        """What is there now and was not then; ends of what is just ending are waited for a short while."""
        if not self._new():
            return []
        gc.collect()
        wait_until(lambda: not self._new(), GRACE)
        return self._new()

    def _new(self) -> list[str]:
        now = Footprint.now()
        pairs = ((now.threads, self.threads), (now.processes, self.processes), (now.sockets, self.sockets))
        return [said for mine, before in pairs for key, said in mine.items() if key not in before]
