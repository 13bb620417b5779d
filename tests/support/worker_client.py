"""Who calls the tasks of `worker_app` in a test: an app of its own, as a closed one stays closed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from amqp_tasks import App, AsyncResult
from support.ledger import Ledger
from support.worker_app import QUEUE

__all__ = ("Holding", "WorkerClient")


class WorkerClient:
    """Sends calls of `act` and friends by name."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.app = App("worker_client", broker=url, task_default_queue=QUEUE, **settings)

    def act(self, key: str, action: str = "ok", argument: Any = None, **options: Any) -> AsyncResult[Any]:
        """Call `act`."""
        return self.app.send_task("act", (key, action, argument), **options)

    def many(self, keys: Iterable[str], action: str = "ok", argument: Any = None) -> None:
        """Call `act` for each key, in bulk."""
        self.app.send_many(
            ("act", (key, action, argument), dict[str, Any](), {"ignore_result": True}) for key in keys
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.app.close()


@dataclass(frozen=True)
class Holding:
    """Tasks that run until they are let go, all at once."""

    client: WorkerClient
    ledger: Ledger
    gate: Path

    def __call__(self, key: str) -> AsyncResult[Any]:
        """Call one; returns when it runs."""
        result = self.client.act(key, "wait", str(self.gate))
        self.ledger.wait_for("start", key)
        return result

    def release(self) -> None:
        """Let them go, and those to come."""
        self.gate.touch()
