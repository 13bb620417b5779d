"""The app of the workflow tests: small tasks that note each run in the ledger."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amqp_tasks import App, Task
from amqp_tasks.errors import Ignore
from support.eventually import wait_until
from support.ledger import Ledger

QUEUE = "work"

app = App("workflow_app", task_default_queue=QUEUE)


def note(event: str, key: str) -> None:
    """Write a line to the ledger."""
    Ledger(Path(os.environ["AMQP_TASKS_TEST_LEDGER"])).record(event, key)


def total(value: Any) -> int:
    """The sum of a number, or of the numbers in a list however deep."""
    return sum(map(total, value)) if isinstance(value, list) else int(value)


@app.task(name="step")
def step(value: Any, number: int = 0) -> int:
    """The total of what came before, and a number."""
    return total(value) + number


@app.task(name="add")
def add(x: int, y: int) -> int:
    """The sum."""
    return x + y


@app.task(name="gather")
def gather(values: list[Any], key: str = "") -> list[Any]:
    """What a chord gave it."""
    note("gather", key)
    return values


@app.task(name="fail")
def fail(*args: Any) -> None:
    """Raise an error."""
    raise ValueError("no")


@app.task(name="again", bind=True)
def again(self: Task[..., Any], value: Any, number: int = 0) -> int:
    """`step`, at the second attempt."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return total(value) + number


@app.task(name="die", acks_late=True)
def die(value: Any, number: int, marker: str) -> int:
    """`step`, after its process was killed once."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return total(value) + number


@app.task(name="told")
def told(task_id: str, key: str) -> None:
    """An errback that gets the id."""
    note("told", key)


@app.task(name="explained")
def explained(request: Any, error: Exception, traceback: str | None) -> None:
    """An errback that gets what happened."""
    note("explained", f"{request.id} {type(error).__name__}")


@app.task(name="raise_in_errback")
def raise_in_errback(request: Any, error: Exception, traceback: str | None) -> None:
    """An errback that fails."""
    raise RuntimeError("an errback that fails")


@app.task(name="seen")
def seen(value: Any, key: str) -> None:
    """A callback."""
    note("seen", f"{key} {value}")


def numbers(count: int) -> Iterator[Any]:
    """Signatures, one after the other."""
    for number in range(count):
        yield add.s(number, number)


@app.task(name="fuse")
def fuse(value: Any, point: str, marker: str) -> int:
    """`step`, after which its process dies once, at a point of the join."""
    if not Path(marker).exists():
        _die_once_at(point, Path(marker))
    return total(value)


def _die_once_at(point: str, marker: Path) -> None:
    from amqp_tasks.worker import _joiner

    def die(*args: Any) -> None:
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    match point:
        case "before the look":
            setattr(_joiner.Joiner, "look", die)  # noqa: B010 - of another type: it does not return
        case "after the queue was taken":
            setattr(_joiner.Joiner, "_steps", die)  # noqa: B010
        case _:
            publish = _joiner._publish

            def publish_and_die(*args: Any) -> None:
                publish(*args)
                die()

            setattr(_joiner, "_publish", publish_and_die)  # noqa: B010


@app.task(name="lose_join")
def lose_join(value: int) -> int:
    """Its value; the next look loses its connection once."""
    from amqp_tasks.transport import ConsumerState
    from amqp_tasks.worker import _joiner

    found = _joiner._Taking._next

    def lost(self: Any) -> Any:
        setattr(_joiner._Taking, "_next", found)  # noqa: B010
        return ConsumerState.LOST

    setattr(_joiner._Taking, "_next", lost)  # noqa: B010
    return value


@app.task(name="hold_join", bind=True)
def hold_join(self: Task[..., Any], value: int, go: str) -> int:
    """Its value; the join it is in cannot be looked at before the file `go` is there."""
    from amqp_tasks.worker import _joiner

    look_at, held = _joiner.Joiner._look_at, self.request.joins[0][0]

    def look(self: Any, queue: str, size: int) -> None:
        if queue == held and not Path(go).exists():
            raise OSError("held by the test")
        look_at(self, queue, size)

    setattr(_joiner.Joiner, "_look_at", look)  # noqa: B010
    return value


@app.task(name="slow_step")
def slow_step(value: Any, number: int) -> int:
    """`step`, which takes its time."""
    time.sleep(0.02)
    return total(value) + number


@app.task(name="replaced", bind=True)
def replaced(self: Task[..., Any], value: Any, part: dict[str, Any]) -> None:
    """Have another part of a workflow run in its place."""
    raise self.replace(self.app.signature(part))


@app.task(name="joined", bind=True)
def joined(self: Task[..., Any], value: Any, more: int) -> int:
    """`step`, which adds members to its chord."""
    for number in range(more):
        self.add_to_chord(add.s(10, number))
    return total(value)


@app.task(name="joined_next", bind=True)
def joined_next(self: Task[..., Any], number: int, last: int) -> int:
    """Its number; adds the next to its chord."""
    if number < last:
        self.add_to_chord(self.s(number + 1, last))
    return number


@app.task(name="rejoined", bind=True)
def rejoined(self: Task[..., Any], value: int) -> int:
    """Its value, at the second attempt; the first adds a member."""
    if not self.request.retries:
        self.add_to_chord(add.s(100, 100))
        raise self.retry(countdown=0)
    return value


@app.task(name="large")
def large() -> str:
    """More than fits into a message."""
    return "x" * (app.settings.app.max_message_bytes + 1)


@app.task(name="ignored")
def ignored(value: Any = None) -> None:
    """Give no result."""
    raise Ignore


@app.task(name="shown", bind=True)
def shown(self: Task[..., Any], value: Any) -> dict[str, Any]:
    """What a task in a workflow is told of itself."""
    request = self.request
    return {"headers": request.headers, "group": request.group, "nesting": request.replaced_task_nesting}


@app.task(name="progressing", bind=True)
def progressing(self: Task[..., Any], total: int, go: str) -> int:
    """Tell of each step; begins when the file `go` is there."""
    wait_until(lambda: Path(go).exists(), within=20)
    self.update_state("LOADING", {"rows": 1})
    for number in range(1, total + 1):
        self.progress(number, total, f"step {number}")
    return total
