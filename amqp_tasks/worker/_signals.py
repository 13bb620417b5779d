"""Signals of the process that runs a node: handlers do next to nothing, the loop acts."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._template import STDERR_FD

__all__ = ("acting_on_signals", "noting_signals")


def _nothing(*args: object) -> None:
    """The loop acts, not the handler; and what is not offered does nothing."""


@contextmanager
def acting_on_signals(
    loop: Loop,
    *,
    stop: Callable[[], None],
    dump_children: Callable[[], None] = _nothing,
    restart: Callable[[], None] | None = None,
    reap: Callable[[], None] = _nothing,
) -> Generator[None]:
    """Let the loop act on signals: the interpreter writes their numbers to the loop's pipe. Main thread only.

    Args:
        loop: that of the node.
        stop: on TERM and INT.
        dump_children: on QUIT and USR1, after our own stacks.
        restart: on HUP; None: that stops too. A HUP that our starter had us ignore (`nohup`) stays ignored.
        reap: on CHLD, as PID 1.
    """

    def act(numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                stop()
            elif number == signal.SIGHUP:
                (restart or stop)()
            elif number in (signal.SIGQUIT, signal.SIGUSR1):
                faulthandler.dump_traceback(file=STDERR_FD, all_threads=True)
                dump_children()
            elif number == signal.SIGCHLD:
                reap()

    watched = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        watched.append(signal.SIGHUP)
    if os.getpid() == 1:
        watched.append(signal.SIGCHLD)
    loop.on_wake_bytes(act)
    before = {number: signal.signal(number, _nothing) for number in watched}
    before_fd = signal.set_wakeup_fd(loop.wake_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def noting_signals(note: Callable[[], None]) -> Generator[None]:
    """Before the loop runs: TERM and INT are only noted. Outside the main thread nothing is changed.

    Args:
        note: sets a flag; it interrupts the main thread anywhere, so it must take no lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: object) -> None:
        note()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
