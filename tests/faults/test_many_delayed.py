"""Very many delayed tasks wait in the broker: no worker feels them, and none is lost, early or run twice."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import psutil
import pytest

from support import Ledger, RawClient, WorkerProcess, WorkerProcesses, eventually
from support.worker_client import WorkerClient

EARLY = 0.05
MEMORY = 10 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("count", "first_due", "spread"),
    [(2000, 8, 4), pytest.param(50_000, 60, 30, marks=pytest.mark.long, id="50000")],
)
def test_promise_14_delayed_tasks_wait_in_the_broker_and_run_once_and_on_time(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    count: int,
    first_due: int,
    spread: int,
) -> None:
    first = worker_process("-c", "2", "-l", "WARNING", ready=r"\[tasks\]")
    at_once_before = _call_at_once(client, "before")
    memory_before = _memory(first)

    due = _delay(client, count, first_due, spread)
    at_once_meanwhile = _call_at_once(client, "meanwhile")
    memory_meanwhile = _memory(first)
    waiting = _in_the_wheel(raw_client)
    # On a slow machine the first are due before the last of all this is done.
    not_due = {key for key, at in due.items() if at > time.monotonic()}
    first.kill_all()
    ran_before_the_kill = set(ledger.keys("done")) & due.keys()
    due_later = {key for key, at in due.items() if at > time.monotonic()}
    second = worker_process("-c", "2", "-l", "WARNING", ready=r"\[tasks\]")
    eventually(lambda: len(ledger.keys("done")) >= count + 100, within=first_due + spread + 120)

    ran = {entry.key: entry.at for entry in ledger.entries("done")}
    late = sorted(ran[key] - at for key, at in due.items())
    print(
        f"{count} delayed: late p50 {statistics.median(late):.3f} s, p99 {late[int(len(late) * 0.99)]:.3f} s,"
        f" max {late[-1]:.3f} s; memory {(memory_meanwhile - memory_before) / 2**20:+.1f} MiB;"
        f" a task at once {at_once_before * 1000:.1f} ms before, {at_once_meanwhile * 1000:.1f} ms meanwhile"
    )
    assert due_later, "all were due before the worker was killed"
    assert not ran_before_the_kill & due_later
    assert len(not_due) <= waiting <= count
    assert abs(memory_meanwhile - memory_before) < MEMORY
    assert late[0] > -EARLY
    # What ran when the worker was killed may have run again.
    counts = ledger.counts("done")
    assert {counts[key] for key in due_later} == {1}
    assert second.stop() == 0
    assert set(ran) >= due.keys()


def _delay(client: WorkerClient, count: int, first_due: int, spread: int) -> dict[str, float]:
    """Delay so many tasks; returns when each is due, at the earliest, on the clock of the ledger."""
    due: dict[str, float] = {}

    def calls() -> Iterator[tuple[str, tuple[str], dict[str, object], dict[str, float]]]:
        for number in range(count):
            countdown = first_due + number % (spread * 100) / 100
            key = f"delayed-{number}"
            due[key] = time.monotonic() + countdown
            yield "count", (key,), {}, {"countdown": countdown}

    began = time.monotonic()
    client.app.send_many(calls())
    print(f"{count / (time.monotonic() - began):.0f} delayed tasks sent per second")
    return due


def _in_the_wheel(raw: RawClient) -> int:
    """How many tasks wait in the broker's timer queues."""
    names = [f"amqp_tasks.delay.{level}.{digit:x}" for level in range(2) for digit in range(1, 16)]
    return sum(max(0, raw.depth(name)) for name in names)


def _call_at_once(client: WorkerClient, name: str) -> float:
    """Call 50 tasks without a delay, one after the other; returns the median of their seconds."""
    seconds = list[float]()
    for number in range(50):
        began = time.monotonic()
        client.act(f"{name}-{number}").get(timeout=20)
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def _memory(worker: WorkerProcess) -> int:
    """Bytes of all its processes, shared ones in proportion."""
    pids = [worker.pid, *worker.children()]
    return sum(int(psutil.Process(pid).memory_full_info().pss) for pid in pids)
