"""Dying with the parent, and burying what lost its own."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ("die_with_parent", "reap_strays")

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere than on Linux only the check is made.

    `SIGKILL`, as nothing that runs here may hold it up: what was not acked goes to others. The end of the socket pair
    with the supervisor is the second way to notice, on every system.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died between the fork and the request.
        os._exit(1)


def reap_strays() -> None:
    """As PID 1: collect what tasks left behind."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
