"""Waiting for an assertion to hold, and time that has to pass: the only place that sleeps, benchmarks apart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ("eventually", "let_pass", "wait_until")

T = TypeVar("T")
INTERVAL = 0.02
PATIENCE = float(os.environ.get("AMQP_TASKS_TEST_PATIENCE", "3"))
"""How much slower than a machine that has nothing else to do one may be; what never comes is found out so much later."""


def eventually(check: Callable[[], T], within: float = 5.0) -> T:
    """Call `check` until it raises no AssertionError (or LookupError) and returns something other than False.

    Args:
        check: makes its own assertions, or returns a bool.
        within: seconds, on a machine that has nothing else to do.

    Returns:
        What `check` returned.

    Raises:
        AssertionError: the last one, when `PATIENCE` times `within` is over.
    """
    deadline = time.monotonic() + PATIENCE * within
    while True:
        try:
            outcome = check()
        except (AssertionError, LookupError):
            if time.monotonic() >= deadline:
                raise
        else:
            if outcome is not False:
                return outcome
            assert time.monotonic() < deadline, f"still not so after {within} s"
        time.sleep(INTERVAL)


def wait_until(condition: Callable[[], bool], within: float) -> bool:
    """Whether `condition` came true within so many seconds; asks at once and never raises for time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(INTERVAL)
    return True


def let_pass(seconds: float) -> None:
    """Let time pass that is itself the subject, the length of a fault or of a task's work; never to wait for an event."""
    time.sleep(seconds)
