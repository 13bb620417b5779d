"""Signals while the main thread runs the loop: noted in the middle of a turn, handled between two.

Python calls signal handlers in the main thread between any two of its instructions, and the usual ones raise
(`KeyboardInterrupt`). One that came in the middle of a turn would leave half of what it does undone: a frame read and
not handled, a message in no list. So whoever leads on the main thread wraps the handlers for as long as that lasts.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

__all__ = ("HeldSignals", "is_main_thread")

_Handler = Callable[[int, FrameType | None], Any]

# What `signal` itself is made of, without its enums: they cost ten times what the calls do, and each call of ours asks.
_plain: Any = importlib.import_module("_signal")
_handler_of: Callable[[int], Any] = _plain.getsignal
_CATCHABLE = tuple(
    number
    for number in (int(known) for known in signal.valid_signals())
    if number not in {signal.SIGKILL, signal.SIGSTOP} and number < getattr(signal, "SIGRTMIN", 65)
)


def is_main_thread() -> bool:
    """Whether signal handlers run on this thread."""
    return threading.get_ident() == threading.main_thread().ident


class HeldSignals:
    """Main thread only. Wraps handlers that are Python functions: the others cannot raise.

    Args:
        is_turning: whether a signal must be noted instead of handled.
    """

    def __init__(self, is_turning: Callable[[], bool]) -> None:
        self._is_turning = is_turning
        self._is_holding = False
        self._seen: list[Any] = []  # the handlers that `_wraps` was made for
        self._wraps: list[tuple[int, _Handler, _Handler]] = []  # number, theirs, ours
        self.noted: list[tuple[int, FrameType | None, _Handler]] = []

    def hold(self) -> None:
        """Wrap what is there now. May be interrupted anywhere: `let_go` undoes what was done."""
        while not self._is_holding:
            self._is_holding = True
            seen: list[Any] = list(map(_handler_of, _CATCHABLE))
            if seen != self._seen:
                self._wraps, self._seen = self._wrapped(seen), seen
            for number, _, ours in self._wraps:
                _plain.signal(number, ours)
            # A handler that ran meanwhile and called in its turn has let go of all: once more.

    def _wrapped(self, seen: list[Any]) -> list[tuple[int, _Handler, _Handler]]:
        return [
            (number, theirs, partial(self._on_signal, theirs))
            for number, theirs in zip(_CATCHABLE, seen, strict=True)
            if callable(theirs)
        ]

    def let_go(self) -> None:
        """Put the handlers back, except where somebody has set another meanwhile, then handle what was noted."""
        # First, so that an interruption in here leaves wrappers behind that do nothing.
        self._is_holding = False
        try:
            for number, theirs, ours in self._wraps:
                if _handler_of(number) is ours:
                    _plain.signal(number, theirs)
        finally:
            if self.noted:
                self.handle_noted()

    def forget(self) -> None:
        """In a forked child, on its only thread: what was noted is the parent's."""
        self.noted.clear()
        self.let_go()

    def handle_noted(self) -> None:
        """Handle what came in the middle of a turn."""
        while self.noted:
            number, frame, theirs = self.noted.pop(0)
            theirs(number, frame)

    def _on_signal(self, theirs: _Handler, number: int, frame: FrameType | None) -> None:
        if self._is_holding and self._is_turning():
            self.noted.append((number, frame, theirs))
        else:
            theirs(number, frame)
