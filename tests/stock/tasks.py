"""What the tasks of the interop tests do, the same whoever runs them; the ledger is `support.ledger`'s."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from stock.errors import OrderRefused

__all__ = ("described", "echo", "hold", "insist", "note", "refuse", "stamped", "trail")


def note(event: str, key: str) -> None:
    """Write a line to the ledger."""
    line = json.dumps({"event": event, "key": key, "pid": os.getpid()}) + "\n"
    with Path(os.environ["AMQP_TASKS_TEST_LEDGER"]).open("a", buffering=len(line) + 1) as ledger:
        ledger.write(line)


def echo(value: Any = None) -> Any:
    """The value, after a report of its run."""
    note("done", repr(value))
    return value


def trail(system: str, before: Any, name: str) -> list[Any]:
    """A step of a workflow: what it was given, and who it was."""
    note("step", f"{system}.{name}")
    return [*(before if isinstance(before, list) else [before]), f"{system}.{name}"]


def refuse(kind: str) -> None:
    """Fail in one of the ways that an exception can travel."""
    if kind == "builtin":
        raise ValueError("not like this", 7)
    if kind == "shared":
        raise OrderRefused(42, "sold out, ausverkauft ✗")
    raise type("OnlyHere", (Exception,), {"__module__": "nowhere.to.be.imported"})("only here", 1)


def hold(gate: str) -> str:
    """Wait until the test makes this file; bounded."""
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not Path(gate).exists() and time.monotonic() < deadline:
        pause.wait(0.01)
    return "released"


def described(request: Any) -> dict[str, Any]:
    """What the task sees of its request."""
    names = ("id", "root_id", "parent_id", "correlation_id", "retries", "group")
    found: dict[str, Any] = {name: getattr(request, name) for name in names}
    found["own"] = (request.headers or {}).get("x-tenant")
    found["args"] = list(request.args or ())
    found["priority"] = request.delivery_info["priority"]
    found["routing_key"] = request.delivery_info["routing_key"]
    return found


def insist(task: Any, times: int, limit: int) -> int:
    """Retry so often at once, then return how often that was."""
    if task.request.retries < times:
        raise task.retry(countdown=0, max_retries=limit)
    return int(task.request.retries)


def stamped(system: str, request: Any, before: tuple[Any, ...]) -> list[Any]:
    """Which system ran it, and what it is stamped with; after those before."""
    return [*(before[0] if before else ()), [system, request.stamps, sorted(request.stamped_headers or ())]]
