"""The template: a single-threaded process with the app imported, from which worker processes are forked.

The supervisor forks it before it has a thread or a connection of its own. On its link it takes `fork` messages, each
with the worker process's end of a socket pair, and answers `forked`, or `unforked` where the system refuses, and later
`exited` with the pid and the exit code (negative: the signal). It ends when the link does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.worker._link import Link, LinkClosed, Message
from amqp_tasks.worker._orphans import die_with_parent
from amqp_tasks.worker._titles import set_title

__all__ = ("STDERR_FD", "ChildMain", "end_template", "fork_template")

logger = logging.getLogger(__name__)

ChildMain = Callable[[socket.socket, Message], None]
"""What a worker process does: its end of the link, and the message that asked for it."""

STDERR_FD = 2
END_TIMEOUT = 2.0
"""Seconds that the template gets to end by itself."""
_LONGEST_WAIT = 60.0
_SHARED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


def fork_template(child_main: ChildMain, node: str) -> tuple[int, Link]:
    """Fork the template; returns its pid and the supervisor's end of its link.

    To be called by the main thread while it is the only one; other threads are warned about, for their locks
    would be held for ever in every worker process.
    """
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if others:
        logger.warning(
            "importing the app started threads (%s): they do not exist in worker processes, and what they hold "
            "locked stays locked there; start them when the first task needs them", ", ".join(others),
            extra={"action": "threads_before_fork"},
        )  # fmt: skip
    ours, theirs = Link.pair()
    supervisor_pid = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal to the whole group must not reach the copy while it would still answer in the supervisor's name.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SHARED_SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return pid, Link(ours)
    signal.set_wakeup_fd(-1)
    ignore_shared_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ours.close()
    set_title(node, "template")
    return _run_and_exit(lambda: _Template(Link(theirs), child_main).run(supervisor_pid))


def end_template(pid: int, link: Link) -> None:
    """Close its link, which ends it; then make sure. Its worker processes die with it."""
    link.close()
    deadline = SYSTEM_CLOCK.monotonic() + END_TIMEOUT
    pause = threading.Event()
    while SYSTEM_CLOCK.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return
        pause.wait(0.01)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _run_and_exit(body: Callable[[], None]) -> NoReturn:
    """A forked process never returns into its parent's code."""
    code = 1
    try:
        body()
        code = 0
    except Exception:
        logger.exception("unexpected error, process ends", extra={"action": "process_error"})
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class _Template:
    def __init__(self, link: Link, child_main: ChildMain) -> None:
        self._link, self._child_main = link, child_main
        self._wake_read, self._wake_write = os.pipe()

    def run(self, supervisor_pid: int) -> None:
        die_with_parent(supervisor_pid)
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        with contextlib.suppress(LinkClosed):
            while True:
                self._serve_once()

    def _serve_once(self) -> None:
        link_fd = self._link.socket.fileno()
        readable, _, _ = select.select([link_fd, self._wake_read], [], [], _LONGEST_WAIT)
        if self._wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        self._reap()
        if link_fd in readable:
            for message in self._link.receive():
                self._obey(message)

    def _obey(self, message: Message) -> None:
        try:
            self._fork(message, self._link.take_fd())
        except (OSError, IndexError) as exc:
            # Too many processes or descriptors, too little memory: that passes, the node must not end for it.
            if isinstance(exc, LinkClosed):
                raise
            self._link.send({"kind": "unforked", "serial": message["serial"], "error": str(exc)})

    def _fork(self, message: Message, fd: int) -> None:
        template_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(fd)
            raise
        if pid:
            os.close(fd)
            self._link.send({"kind": "forked", "serial": message["serial"], "pid": pid})
            return
        _run_and_exit(lambda: self._become_child(template_pid, message, fd))

    def _become_child(self, template_pid: int, message: Message, fd: int) -> None:
        die_with_parent(template_pid)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._link.close()
        for inherited in (self._wake_read, self._wake_write):
            os.close(inherited)
        self._child_main(socket.socket(fileno=fd), message)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._link.send({"kind": "exited", "pid": pid, "status": os.waitstatus_to_exitcode(status)})


def ignore_shared_signals() -> None:
    """Leave to the supervisor what a terminal or `kill` sends to the whole group; USR1 prints this process's stacks.

    Handlers, not SIG_IGN: that would be inherited by the programs that tasks start, which could not be terminated then.
    """
    for number in _SHARED_SIGNALS:
        signal.signal(number, _nothing)
    # The descriptor, as `sys.stderr` may capture what tasks print.
    faulthandler.register(signal.SIGUSR1, file=STDERR_FD, all_threads=True)


def has_own_handler(number: signal.Signals) -> bool:
    """Whether somebody has set a handler in Python, other than the one of `ignore_shared_signals`."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not _nothing


def _nothing(number: int, frame: object) -> None:
    """The supervisor acts."""
