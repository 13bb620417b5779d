"""Dramatiq with the middleware that it has by default, and confirms."""

from __future__ import annotations

import sys
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage, default_middleware

from benchmarks.clients.dramatiq_client import QUEUE, broker
from support.callers.calling import call_until_told
from support.worker_app import perform

for each in (*(make for make in default_middleware if make.__name__ != "Prometheus"), CurrentMessage):
    broker.add_middleware(each())


@dramatiq.actor(actor_name="act", queue_name=QUEUE)
def act(key: str, action: str = "ok", argument: Any = None) -> Any:
    """What `perform` does."""
    message = CurrentMessage.get_current_message()
    return perform(key, action, argument, message.message_id if message else "")


class DramatiqCaller:
    """Calls `act`. It has no results without another store."""

    def send(self, key: str, action: str, argument: Any, *, wants_result: bool) -> Any:
        """See `Caller`."""
        return act.send(key, action, argument)

    def is_certainly_not_stored(self, error: Exception) -> bool:
        """Its errors do not say."""
        return False

    def value(self, handle: Any, timeout: float) -> Any:
        """See `Caller`."""
        raise NotImplementedError("results need Redis or memcached")


if __name__ == "__main__":
    call_until_told(DramatiqCaller(), sys.argv)
