"""`python -m support.migrating URL QUEUE POINT`: migrate a queue, and be killed at a point.

A point is the number of the call to the broker after which the process dies (`3`), or the number of the message that is confirmed
and not acknowledged any more (`message 5`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from amqp_tasks import App
from amqp_tasks.app._mover import Mover

__all__ = ("CALLS", "QUIET", "main", "migrate")

CALLS = ("ensure_topology", "bind", "unbind", "consume", "delete_queue")
QUIET = 0.3


def migrate(url: str, queue: str, change: Callable[[App], None] = lambda _: None) -> int:
    """Migrate the queue to what an app with this one queue declares; returns how many messages came back."""
    with App("migrating", broker=url, task_queues=[queue]) as app:
        change(app)
        return app.migration(queue, quiet=QUIET).run().moved


def main(url: str, queue: str, point: str) -> None:
    """Migrate, and die."""
    if point.startswith("message "):
        _die_at_message(int(point.removeprefix("message ")))
        migrate(url, queue)
    else:
        migrate(url, queue, lambda app: _die_after_call(app, int(point)))
    print("not killed")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after_call(app: App, number: int) -> None:
    left, last = number, ""

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            nonlocal left, last
            returned = call(*args, **options)
            said = f"{call} {args}"
            # What is unbound again and again, as often as there is time for, is one point.
            left, last = left - (said != last), said
            if not left:
                _die()
            return returned

        return called

    transport = app.transport
    for name in CALLS:
        setattr(transport, name, dying(getattr(transport, name)))


def _die_at_message(number: int) -> None:
    left, on_outcome = number, Mover._on_outcome

    def outcome(self: Mover, *args: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            _die()
        on_outcome(self, *args)

    setattr(Mover, "_on_outcome", outcome)  # noqa: B010 - a method in place of another


if __name__ == "__main__":
    main(*sys.argv[1:])
