"""An outage of the broker under a producer, a worker and callers who wait: run once, looked at by several tests."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amqp_tasks import AsyncResult
from amqp_tasks.errors import AmqpTasksError
from support.conservation import assert_conserved
from support.eventually import eventually, wait_until
from support.ledger import Ledger
from support.nodes import speaks_amqp
from support.private import PrivateNode
from support.raw import RawClient
from support.worker_client import WorkerClient
from support.workers import TESTS, WorkerProcesses

__all__ = ("Outage", "run_outage")

TASK_SECONDS = 0.01


@dataclass(slots=True, kw_only=True)
class Outage:
    """What was seen.

    Attributes:
        accepted: results of the calls that returned, by key.
        refused: errors of the others.
        slowest: seconds of the longest call.
        values: what `get` gave.
        failures: what it raised instead.
        early_timeout: how long a `get(timeout=0.5)` took that was called during the outage, and what it raised.
        pause: seconds from when the broker took connections to the first task that ended.
        status: exit status of the worker.
        lost: what the conservation law found.
    """

    accepted: dict[str, AsyncResult[Any]] = field(default_factory=dict)
    refused: list[AmqpTasksError] = field(default_factory=list)
    slowest: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    early_timeout: tuple[float, Exception | None] = (0.0, None)
    pause: float = 0.0
    status: int = -1
    lost: str = ""


def run_outage(node: PrivateNode, *, how: str, folder: Path) -> Outage:
    """Let a producer call and a worker run tasks while the node is restarted or killed and started.

    Args:
        node: to be broken.
        how: `restart` or `kill`.
        folder: for the ledger.
    """
    seen, ledger = Outage(), Ledger(folder / "ledger")
    env = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "AMQP_TASKS_BROKER_URL": node.url,
        "AMQP_TASKS_TEST_LEDGER": str(ledger.path),
    }
    workers = WorkerProcesses(folder, env)
    try:
        with WorkerClient(node.url) as client:
            worker = workers("-c", "2")
            with _producing(client, seen):
                ledger.wait_for("done", count=30, within=30)
                _break(node, how, client, ledger, seen)
                ledger.wait_for("done", count=len(ledger.keys("done")) + 50, within=30)
            _collect(seen)
            with RawClient(node.url) as raw:
                eventually(
                    lambda: raw.depth("work") == 0, within=20
                )  # copies of messages whose confirm was lost
            seen.status = worker.stop()
        with RawClient(node.url) as raw:
            _check(seen, ledger, raw)
    finally:
        workers.close()
    return seen


@contextmanager
def _producing(client: WorkerClient, seen: Outage) -> Iterator[None]:
    is_over = threading.Event()

    def produce() -> None:
        number = 0
        while not is_over.wait(0.005):
            key, began = f"key-{number}", time.monotonic()
            try:
                seen.accepted[key] = client.act(key, "sleep", TASK_SECONDS)
            except AmqpTasksError as exc:
                seen.refused.append(exc)
            seen.slowest = max(seen.slowest, time.monotonic() - began)
            number += 1

    thread = threading.Thread(target=produce, name="producer")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(40)


def _break(node: PrivateNode, how: str, client: WorkerClient, ledger: Ledger, seen: Outage) -> None:
    held = client.act("held", "sleep", 0.0)
    seen.accepted["held"] = held
    if how == "kill":
        # The virtual host is new, and the broker writes its own tables to disk only every other second.
        node.ctl("eval", "mnesia:sync_log().")
        node.kill()
    else:
        node.stop()
    last = next(reversed(seen.accepted.values()))
    began = time.monotonic()
    try:
        last.get(timeout=0.5)
    except Exception as exc:
        seen.early_timeout = (time.monotonic() - began, exc)
    before = len(ledger.keys("done"))
    watch = threading.Thread(target=_watch, args=(node.port, ledger, before, seen), name="watch")
    watch.start()
    node.start()
    watch.join(60)


def _watch(port: int, ledger: Ledger, before: int, seen: Outage) -> None:
    """Measure from when the broker takes connections, which is well before all of it is up."""
    assert wait_until(lambda: speaks_amqp(port), 60)
    returned = time.monotonic()
    assert wait_until(lambda: len(ledger.keys("done")) > before, 30)
    seen.pause = time.monotonic() - returned


def _collect(seen: Outage) -> None:
    for key, result in seen.accepted.items():
        try:
            seen.values[key] = result.get(timeout=30)
        except Exception as exc:
            seen.failures[key] = exc


def _check(seen: Outage, ledger: Ledger, raw: RawClient) -> None:
    # A redelivery that the worker held while it was told to stop is back in the queue; the law counts it.
    try:
        assert_conserved(set(seen.accepted), ledger, raw)
    except AssertionError as exc:
        seen.lost = str(exc)
