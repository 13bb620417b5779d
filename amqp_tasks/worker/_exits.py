"""Ending a process at once, whatever its other threads do: a worker process, or a child that a task has forked."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

from amqp_tasks.worker._accounts import error_text

__all__ = ("exit_if_forked", "exit_now")

logger = logging.getLogger(__name__)


def exit_now(code: int) -> NoReturn:
    """End with what was printed, and without anything else that is left to do."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def exit_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End a child that users' code has forked and that comes back to ours, with the code of a script that ends so.

    It must go no further: it shares the records with the worker process, and could tell whoever waits for its parent's task of an
    outcome of its own.

    Args:
        pid: of the worker process.
        error: what it has raised.
    """
    if os.getpid() == pid:
        return
    if isinstance(error, SystemExit):
        exit_now(_code_of(error))
    if error is not None:
        logger.error(
            "a process that a task has forked ends by an error", exc_info=error, extra={"action": "forked"}
        )
    exit_now(0 if error is None else 1)


def _code_of(error: SystemExit) -> int:
    code = error.code
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    logger.error("a process that a task has forked ends: %s", error_text(error), extra={"action": "forked"})
    return 1
