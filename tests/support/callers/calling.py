"""What a calling process does: call until told to stop, and write down before and after what it asks for and gets."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from support.ledger import Ledger

__all__ = ("Caller", "Orders", "call_until_told")


class Caller(Protocol):
    """One system's client."""

    def send(self, key: str, action: str, argument: Any, *, wants_result: bool) -> Any:
        """Call the task; returns a handle of its result."""

    def is_certainly_not_stored(self, error: Exception) -> bool:
        """Whether the error of a call says that."""

    def value(self, handle: Any, timeout: float) -> Any:
        """The result of a call, waited for."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a calling process is to do; travels as JSON on its command line.

    Attributes:
        name: begins each of its keys.
        ledger: the file it reports to.
        interval: seconds between two calls; None makes none but those it is told on standard input.
        action: what the tasks do, see `worker_app`.
        argument: of the action.
        gets: seconds to wait for each result; None wants none.
    """

    name: str
    ledger: str
    interval: float | None
    action: str
    argument: Any
    gets: float | None

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class _Input:
    """Standard input, read by a thread: a line is a call to make, its end is the order to stop."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[str, str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="input", daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.calls.put(tuple(json.loads(line)))
        self.calls.put(None)


def call_until_told(caller: Caller, argv: list[str]) -> None:
    """`python -m support.callers.X ORDERS`: call until standard input ends, then leave at once."""
    orders = Orders(**json.loads(argv[1]))
    ledger = Ledger(Path(orders.ledger))
    told, number = _Input(), 0
    while True:
        try:
            call = told.calls.get(timeout=orders.interval)
        except queue.Empty:
            call = (f"{orders.name}-{number}", orders.action, orders.argument)
            number += 1
        if call is None:
            break
        _call(caller, orders, ledger, call)
    ledger.record("caller-ended", orders.name)
    os._exit(0)  # some peers hang in what they do at exit, which is not what is looked at


def _call(caller: Caller, orders: Orders, ledger: Ledger, call: tuple[str, str, Any]) -> None:
    key, action, argument = call
    ledger.record("submit", key)
    try:
        handle = caller.send(key, action, argument, wants_result=orders.gets is not None)
    except Exception as exc:
        certain = caller.is_certainly_not_stored(exc)
        ledger.record("refused" if certain else "unknown", key, f"{type(exc).__name__}: {exc}")
        return
    ledger.record("accepted", key)
    if orders.gets is None:
        return
    ledger.record("get", key)
    try:
        value = caller.value(handle, orders.gets)
    except Exception as exc:
        ledger.record("no-value", key, f"{type(exc).__name__}: {exc}")
    else:
        ledger.record("value" if value == key else "no-value", key, repr(value))
