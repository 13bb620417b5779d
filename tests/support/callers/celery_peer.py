"""Celery, made as safe as its documentation tells: quorum queue, confirms, late acks, nothing acked for a lost process."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.clients.celery_client import app
from support.callers.calling import call_until_told
from support.worker_app import perform

app.conf.update(task_reject_on_worker_lost=True, broker_heartbeat=10)


@app.task(name="act", bind=True)  # type: ignore[untyped-decorator]  # Celery has no annotations
def act(self: Any, key: str, action: str = "ok", argument: Any = None) -> Any:
    """What `perform` does."""
    return perform(key, action, argument, self.request.id)


class CeleryCaller:
    """Calls `act`."""

    def send(self, key: str, action: str, argument: Any, *, wants_result: bool) -> Any:
        """See `Caller`."""
        return act.apply_async((key, action, argument), ignore_result=not wants_result)

    def is_certainly_not_stored(self, error: Exception) -> bool:
        """Its errors do not say."""
        return False

    def value(self, handle: Any, timeout: float) -> Any:
        """See `Caller`."""
        return handle.get(timeout=timeout)


if __name__ == "__main__":
    call_until_told(CeleryCaller(), sys.argv)
