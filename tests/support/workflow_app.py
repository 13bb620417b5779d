"""The app of the workflow tests: small tasks that note each run in the ledger."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amqp_tasks import App, AsyncResult, GroupResult, Task, chord, group
from amqp_tasks.errors import Ignore, Reject
from support.eventually import let_pass, wait_until
from support.ledger import Ledger

QUEUE = "work"
CARD = "4111-2222"

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


@app.task(name="add_later")
async def add_later(x: int, y: int = 1) -> int:
    """The sum, as a coroutine."""
    return x + y


@app.task(name="gather")
def gather(values: list[Any], key: str = "") -> list[Any]:
    """What a chord gave it."""
    note("gather", key)
    return values


@app.task(name="completed")
def completed(outcomes: list[dict[str, Any]], key: str = "") -> list[list[Any]]:
    """State of each, and its value or the type of its error."""
    note("completed", key)
    return [[each["state"], (each["error"] or {}).get("exc_type", each["value"])] for each in outcomes]


@app.task(name="tally")
def tally(outcomes: list[dict[str, Any]]) -> int:
    """The total of what came, with 1000 for each failure."""
    return sum(1000 if each["state"] != "SUCCESS" else total(each["value"]) for each in outcomes)


@app.task(name="all_well")
def all_well(outcomes: list[dict[str, Any]]) -> list[Any]:
    """The values, where no member has failed."""
    if any(each["error"] for each in outcomes):
        raise RuntimeError("not all well")
    return [each["value"] for each in outcomes]


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


@app.task(name="explained_later")
async def explained_later(request: Any, error: Exception, traceback: str | None) -> None:
    """`explained`, as a coroutine."""
    note("explained later", f"{request.id} {type(error).__name__}")


@app.task(name="raise_in_errback")
def raise_in_errback(request: Any, error: Exception, traceback: str | None) -> None:
    """An errback that fails."""
    raise RuntimeError("an errback that fails")


@app.task(name="described")
def described(request: Any, error: Exception, traceback: str | None, key: str) -> None:
    """An errback that tells all it gets."""
    note("described", f"{key} {request.task} {request.args} {request.kwargs} {request.stamps} {error!r}")


@app.task(name="hang_in_errback", time_limit=1.0)
def hang_in_errback(request: Any, error: Exception, traceback: str | None) -> None:
    """An errback that comes to no end."""
    note("hanging", request.id)
    wait_until(lambda: False, within=60)


@app.task(name="die_in_errback")
def die_in_errback(request: Any, error: Exception, traceback: str | None, marker: str) -> None:
    """An errback that kills its process once."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note("died", request.id)


@app.task(name="seen")
def seen(value: Any, key: str) -> None:
    """A callback."""
    note("seen", f"{key} {value}")


@app.task(name="seen_as", bind=True)
def seen_as(self: Task[..., Any], value: Any, key: str) -> None:
    """A callback that notes its id."""
    note("seen", f"{key} {self.request.id}")


@app.task(name="told_as", bind=True)
def told_as(self: Task[..., Any], task_id: str, key: str) -> None:
    """An errback that notes its id."""
    note("told", f"{key} {self.request.id}")


def numbers(count: int) -> Iterator[Any]:
    """Signatures, one after the other."""
    for number in range(count):
        yield add.s(number, number)


@app.task(name="calling")
def calling(signature: Any, *args: Any) -> None:
    """Call what it was given, with further arguments."""
    app.signature(signature).delay(*args)


@app.task(name="fuse")
def fuse(value: Any, point: str, marker: str) -> int:
    """`step`, after which its process dies once, at a point of the join."""
    if not Path(marker).exists():
        _die_once_at(point, Path(marker))
    return total(value)


def _die_once_at(point: str, marker: Path) -> None:
    from amqp_tasks.worker import _joiner, _sending

    def die(*args: Any) -> None:
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    match point:
        case "before the look":
            setattr(_joiner.Joiner, "look", die)  # noqa: B010 - of another type: it does not return
        case "after the queue was taken":
            setattr(_joiner.Joiner, "_steps", die)  # noqa: B010
        case _:
            send = _sending.Sending.send_once

            def send_and_die(*args: Any) -> None:
                send(*args)
                die()

            setattr(_sending.Sending, "send_once", send_and_die)  # noqa: B010


@app.task(name="fuse_early", acks_late=False)
def fuse_early(value: Any, marker: str) -> int:
    """As `fuse`, before the look; acked before it runs."""
    _die_once_at("before the look", Path(marker))
    return total(value)


@app.task(name="gated")
def gated(value: Any, go: str) -> int:
    """`step`, when the file `go` is there."""
    wait_until(Path(go).exists, within=60)
    return total(value)


@app.task(name="fuse_behind", acks_late=True)
def fuse_behind(marker: str, is_failing: bool) -> None:
    """Its process dies once, when what follows it was confirmed."""
    from amqp_tasks.worker import _sending

    send = _sending.Sending.send

    def send_and_die(self: Any, steps: Any, then: Any) -> None:
        def die() -> None:
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

        send(self, steps, then if Path(marker).exists() else die)

    setattr(_sending.Sending, "send", send_and_die)  # noqa: B010
    if is_failing:
        raise ValueError("no")


@app.task(name="named", bind=True)
def named(self: Task[..., Any], value: Any) -> None:
    """Note its id."""
    note("named", str(self.request.id))


@app.task(name="lose_join")
def lose_join(value: int) -> int:
    """Its value; the next look loses its connection once."""
    from amqp_tasks.transport import ConsumerState
    from amqp_tasks.worker import _taking

    found = _taking.Taking._next

    def lost(self: Any) -> Any:
        setattr(_taking.Taking, "_next", found)  # noqa: B010
        return ConsumerState.LOST

    setattr(_taking.Taking, "_next", lost)  # noqa: B010
    return value


@app.task(name="hold_look")
def hold_look(value: int, looking: str, go: str) -> int:
    """Its value; the next look of its process, once, goes on with what it has taken when the file `go` is there."""
    from amqp_tasks.worker import _taking

    read = _taking.Taking.read

    def held(self: Any) -> None:
        setattr(_taking.Taking, "read", read)  # noqa: B010
        Path(looking).touch()
        wait_until(Path(go).exists, within=60)
        read(self)

    if not Path(looking).exists():
        setattr(_taking.Taking, "read", held)  # noqa: B010
    return value


@app.task(name="hold_join", bind=True)
def hold_join(self: Task[..., Any], value: int, go: str) -> int:
    """Its value; the join it is in cannot be looked at before the file `go` is there."""
    from amqp_tasks.worker import _joiner

    look_at, held = _joiner.Joiner._look_at, self.request.joins[0][0]

    def look(self: Any, queue: str, size: int, **given: Any) -> Any:
        if queue == held and not Path(go).exists():
            raise OSError("held by the test")
        return look_at(self, queue, size, **given)

    setattr(_joiner.Joiner, "_look_at", look)  # noqa: B010
    return value


@app.task(name="slow_step")
def slow_step(value: Any, number: int) -> int:
    """`step`, which takes so long that faults strike while it runs."""
    let_pass(0.02)
    return total(value) + number


@app.task(name="replaced", bind=True)
def replaced(self: Task[..., Any], value: Any, part: dict[str, Any]) -> None:
    """Have another part of a workflow run in its place."""
    raise self.replace(self.app.signature(part))


@app.task(name="charge", sensitive=("card",))
def charge(card: str) -> int:
    """How long it is."""
    return len(card)


@app.task(name="charging", bind=True)
def charging(self: Task[..., Any], how: str) -> None:
    """Have a card charged in its place, or beside it, which is refused."""
    part = charge.s(card=CARD)
    if how == "replace":
        raise self.replace(part)
    self.add_to_chord(group(part, part) if how == "add-group" else part)


@app.task(name="followed", bind=True)
def followed(self: Task[..., Any], value: int) -> int:
    """Its value; notes what follows it."""
    request = self.request
    names = [
        [each["task"] for each in found or ()]
        for found in (request.callbacks, request.errbacks, request.chain)
    ]
    note("followed", f"{names} {request.chord} {request.is_followed}")
    return value


@app.task(name="rebuilt", bind=True)
def rebuilt(self: Task[..., Any], value: int, *, last: int, how: str) -> int:
    """Its value at last; before that, its own call with the next one, sent or in its place."""
    note("rebuilt", f"{self.request.id} {value} {self.request.stamps} {self.request.headers.get('x-own')}")
    if value == last:
        return value
    following = self.signature_from_request(args=(value + 1,))
    if how == "replace":
        raise self.replace(following)
    following.apply_async()
    raise Ignore


@app.task(name="joined", bind=True)
def joined(self: Task[..., Any], value: Any, more: int) -> int:
    """`step`, which adds members to its chord."""
    for number in range(more):
        self.add_to_chord(add.s(10, number))
    return total(value)


@app.task(name="joined_and_replaced", bind=True)
def joined_and_replaced(self: Task[..., Any]) -> None:
    """Adds a member to its chord, and has another task take its place."""
    self.add_to_chord(add.s(1, 1))
    raise self.replace(add.s(2, 2))


@app.task(name="sender", bind=True)
def sender(self: Task[..., Any]) -> list[str]:
    """Send a chain and a chord; the ids of what they begin with."""
    first = (add.s(1, 1) | step.s(1)).delay().parent
    header = chord([add.s(1, 1), add.s(2, 2)], gather.s())().parent
    assert isinstance(first, AsyncResult)
    assert isinstance(header, GroupResult)
    return [first.id, *(member.id for member in header)]


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


@app.task(name="repeated")
def repeated(text: str, times: int) -> str:
    """A text, so many times."""
    return text * times


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


@app.task(name="reporting", bind=True)
def reporting(self: Task[..., Any], how: str) -> str:
    """Tell of its progress, then end in one of several ways."""
    if how == "nonsense":
        self.progress(math.nan, 10)
        self.progress(math.inf, 10)
        self.progress(1, -math.inf)
        self.progress(10**400, 10)
    self.progress(1, 2, "half")
    if how == "fail":
        raise ValueError("no")
    if how == "ignore":
        raise Ignore
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if how == "hang":
        wait_until(lambda: False, within=60)
    return how


@app.task(name="ending", bind=True)
def ending(self: Task[..., Any], how: str) -> str:
    """End in one of several ways without a word of progress."""
    if how == "silent-fail":
        raise ValueError("no")
    if how == "exit":
        os._exit(3)
    if how == "reject":
        raise Reject("not mine")
    self.update_state("LOADING", {"rows": 10})
    return how


@app.task(name="stamped", bind=True)
def stamped(self: Task[..., Any], before: Any = None, *, how: str = "") -> dict[str, Any]:
    """What it is stamped with, at once or after a retry, or in its place."""
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if how == "replace":
        raise self.replace(stamped.si())
    if how == "wait":
        note("waiting", f"{self.request.stamps}")
        wait_until(lambda: False, within=60)
    note("stamped", f"{self.request.stamps}")
    return self.request.stamps
