"""The app of the tests of `on_dead`: tasks that end in every way there is, and report what their hook was told."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from amqp_tasks import App, current_request
from amqp_tasks.errors import Ignore, Reject
from support.ledger import Ledger

QUEUE = "work"

app = App("dead_app", task_default_queue=QUEUE)


def _ledger() -> Ledger:
    return Ledger(Path(os.environ["AMQP_TASKS_TEST_LEDGER"]))


def _note(event: str, key: str) -> None:
    _ledger().record(event, key)


def note_death(
    exc: Exception, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], einfo: object
) -> None:
    """Report the error's class and the arguments, under the task's id."""
    request = current_request()
    assert request is not None
    assert request.id == task_id
    _note(f"dead {type(exc).__name__} {list(args)}", task_id)


def die_again(*about: Any) -> None:
    """Report, and end the process."""
    note_death(*about)
    os.kill(os.getpid(), signal.SIGKILL)


def never_end(*about: Any) -> None:
    """Report, and go on for longer than anybody waits."""
    note_death(*about)
    threading.Event().wait(600)


@app.task(name="end", on_dead=note_death, max_retries=1, bind=True)
def end(self: Any, how: str) -> str:
    """End this way."""
    match how:
        case "fail":
            raise ValueError(how)
        case "exhaust":
            raise self.retry(exc=ValueError(how), countdown=0)
        case "reject":
            raise Reject(how)
        case "ignore":
            raise Ignore
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            return how
    return how


@app.task(name="end_late", on_dead=note_death, time_limit=0.5)
def end_late(seconds: float) -> None:
    """Sleep beyond the hard limit."""
    threading.Event().wait(seconds)


def _refuse_later(how: str) -> str:
    """Raise what is no `Exception`, once the task has crashed."""
    if not _ledger().keys("crash"):
        return how
    raise SystemExit if how == "exit" else asyncio.CancelledError


@app.task(name="crash_unread", on_dead=note_death)
def crash_unread(how: Annotated[str, AfterValidator(_refuse_later)]) -> None:
    """End the process; after that its arguments cannot be had."""
    _note("crash", how)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="crash_twice_over", on_dead=die_again)
def crash_twice_over() -> None:
    """End the process, as its hook does."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="hang_twice_over", on_dead=never_end, time_limit=0.5)
def hang_twice_over() -> None:
    """Go on beyond the hard limit, as its hook does."""
    threading.Event().wait(600)
