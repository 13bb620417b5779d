"""Signals of the process that runs a node: handlers do next to nothing, the loop acts."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._template import STDERR_FD

__all__ = ("acting_on_signals", "is_term_cold", "noting_signals")

REMAP = "REMAP_SIGTERM"


def is_term_cold(environ: Mapping[str, str]) -> bool:
    """Whether TERM is to do what QUIT does to a worker of Celery's, by its variable `REMAP_SIGTERM`.

    Raises:
        ConfigurationError: the variable has a value that Celery does not know either.
    """
    value = environ.get(REMAP, "")
    if value in ("", "SIGQUIT"):
        return bool(value)
    raise ConfigurationError(
        f"{REMAP} is {value!r:.80}: the only value is 'SIGQUIT', which makes TERM a cold stop; else unset it"
    )


def _nothing(*args: object) -> None:
    """The loop acts, not the handler; and what is not offered does nothing."""


@contextmanager
def acting_on_signals(
    loop: Loop,
    *,
    stop: Callable[[], None],
    dump_children: Callable[[], None] = _nothing,
    restart: Callable[[], None] | None = None,
    terminate: Callable[[], None] | None = None,
    reap: Callable[[], None] = _nothing,
) -> Generator[None]:
    """Let the loop act on signals: the interpreter writes their numbers to the loop's pipe. Main thread only.

    Args:
        loop: that of the node.
        stop: on TERM and INT.
        dump_children: on QUIT and USR1, after our own stacks.
        terminate: on TERM, if that is to do something else than INT; see `is_term_cold`.
        restart: on HUP; None: that stops too. A HUP that our starter had us ignore (`nohup`) stays ignored.
        reap: on CHLD, as PID 1.
    """

    def dump_stacks() -> None:
        faulthandler.dump_traceback(file=STDERR_FD, all_threads=True)
        dump_children()

    actions: Mapping[int, Callable[[], None]] = {
        signal.SIGTERM: terminate or stop,
        signal.SIGINT: stop,
        signal.SIGHUP: restart or stop,
        signal.SIGQUIT: dump_stacks,
        signal.SIGUSR1: dump_stacks,
        signal.SIGCHLD: reap,
    }

    def act(numbers: bytes) -> None:
        for number in numbers:
            actions.get(number, _nothing)()

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
