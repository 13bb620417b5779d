"""Tasks for workflows of named steps, on the app of the workflow tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from amqp_tasks import Task
from amqp_tasks.errors import Ignore, Reject
from support.eventually import wait_until
from support.workflow_app import _die_once_at, app, note

__all__ = ("app", "dying_in_give_up", "fused", "held", "node", "spent", "swapped", "typed")


@app.task(name="node", bind=True)
def node(
    self: Task[..., Any], *values: int, number: int = 0, kind: str = "step", marker: str = "", key: str = ""
) -> int:
    """The sum of what it gets and a number; noted under its key. `marker` is the file of what has happened."""
    if key:
        note("node", key)
    match kind:
        case "fail":
            raise ValueError("no")
        case "mend" if not Path(marker).exists():
            raise ValueError("not yet")
        case "again" if not self.request.retries:
            raise self.retry(countdown=0)
        case "kill" if not Path(marker).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        case "die" if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "spin" if not Path(marker).exists():
            wait_until(lambda: False, within=30)
        case "reject":
            raise Reject("never")
        case "ignore":
            raise Ignore
        case _:
            pass
    return sum(values) + number


@app.task(name="typed")
def typed(value: int, /) -> int:
    """Its value."""
    return value


@app.task(name="held")
def held(*values: int, go: str) -> int:
    """The sum; ends when the file `go` is there."""
    note("held", go)
    wait_until(lambda: Path(go).exists(), within=30)
    return sum(values)


@app.task(name="fused")
def fused(*values: int, point: str, marker: str, fails: bool = False) -> int:
    """The sum, after which its process dies once, at a point of a join."""
    if not Path(marker).exists():
        _die_once_at(point, Path(marker))
    if fails:
        raise ValueError("no")
    return sum(values)


@app.task(name="spent", acks_late=False)
def spent(value: int, *, marker: str) -> int:
    """Its value, acked before it runs; its process dies before the look at its join."""
    _die_once_at("before the look", Path(marker))
    return value


@app.task(name="dying_in_give_up")
def dying_in_give_up(*, point: str, marker: str) -> None:
    """Have its process die once, when it gives up a join of which a step is lost."""
    from amqp_tasks.message import OutgoingMessage
    from amqp_tasks.worker import _engine, _taking

    def die(*args: Any) -> None:
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "before it is told":
        note_all = _taking.Taking.note

        def note_what_came(self: Any, messages: Any) -> None:
            if any(isinstance(message, OutgoingMessage) for message in messages):
                die()
            note_all(self, messages)

        setattr(_taking.Taking, "note", note_what_came)  # noqa: B010
    else:
        setattr(_engine.Engine, "_refuse_alone", die)  # noqa: B010


@app.task(name="swapped", bind=True)
def swapped(self: Task[..., Any], *values: int, part: dict[str, Any]) -> None:
    """Have another task run in its place."""
    raise self.replace(self.app.signature(part))
