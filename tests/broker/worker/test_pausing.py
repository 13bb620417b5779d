"""Queues that are paused, and limits that are set, for all workers that are there or will be."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from amqp_tasks.errors import ConfigurationError, UnknownQueue
from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
OTHER = "other"
POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "2"), ("-P", "solo"))
pytestmark = pytest.mark.usefixtures("ledger")


def has_consumers(client: WorkerClient, queue_name: str, count: int) -> bool:
    status = client.app.transport.queue_status(queue_name)
    return status is not None and status.consumers == count


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_b053_a_paused_queue_is_left_alone_by_all_workers_and_their_successors_until_it_is_resumed(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    pool: tuple[str, ...],
) -> None:
    gate = tmp_path / "gate"
    options = (*pool, "-l", "debug", "--prefetch-multiplier", "10")
    first = worker_process(*options, "-Q", f"{QUEUE},{OTHER}", app=APP)
    running = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")
    sent = {"running"} | {f"more-{number}" for number in range(8)}
    for key in sorted(sent - {"running"}):
        client.act(key, "wait", str(gate))

    client.app.control.pause(QUEUE)
    client.app.control.pause([QUEUE])
    first.wait_output("heeds journal entry: pause")
    # What was fetched goes back, what runs ends, and another queue is served.
    eventually(lambda: raw_client.depth(QUEUE) == len(sent) - len(ledger.keys("start")), within=10)
    started = set(ledger.keys("start"))
    gate.touch()
    assert running.get(timeout=10) == "running"
    assert client.act("elsewhere", queue=OTHER).get(timeout=10) == "elsewhere"
    waiting = client.act("waiting")
    assert first.stop() == 0

    second = worker_process(*options, "-Q", f"{QUEUE},{OTHER}", app=APP)
    assert "(paused)" in second.wait_output(rf"- {QUEUE}: ")
    second.wait_output(f"queue {QUEUE} is paused")
    assert client.act("elsewhere again", queue=OTHER).get(timeout=10) == "elsewhere again"
    assert has_consumers(client, QUEUE, 0)
    assert set(ledger.keys("start")) == started | {"elsewhere", "elsewhere again"}

    client.app.control.resume(QUEUE)
    assert waiting.get(timeout=10) == "waiting"
    eventually(lambda: sent <= set(ledger.keys("done")), within=10)
    assert second.stop() == 0
    assert max(ledger.counts("done").values()) == 1
    assert_conserved(sent | {"waiting", "elsewhere", "elsewhere again"}, ledger, raw_client)


def test_a_worker_of_a_paused_queue_only_becomes_ready_and_goes_on_at_once(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    waiting = client.act("waiting")
    client.app.control.pause(QUEUE)
    worker = worker_process("-c", "1", app=APP)

    assert has_consumers(client, QUEUE, 0)
    client.app.control.resume(QUEUE)

    assert waiting.get(timeout=10) == "waiting"
    assert worker.stop() == 0


def test_a_name_that_nobody_knows_is_refused_and_pauses_nothing(client: WorkerClient) -> None:
    with pytest.raises(UnknownQueue, match="wrok") as caught:
        client.app.control.pause([QUEUE, "wrok"])

    assert QUEUE in caught.value.known
    client.app.control.resume("gone since")


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool[1])
def test_s163_a_rate_limit_set_at_run_time_holds_now_and_for_workers_to_come(
    client: WorkerClient, worker_process: WorkerProcesses, pool: tuple[str, ...]
) -> None:
    def gaps(count: int) -> list[float]:
        sent = [client.act(f"{number}", "monotonic") for number in range(count)]
        times = sorted(result.get(timeout=20) for result in sent)
        return [later - sooner for sooner, later in itertools.pairwise(times)]

    first = worker_process(*pool, app=APP)
    assert min(gaps(20)) < 0.1

    client.app.control.rate_limit("act", "4/s")
    first.wait_output("journal: rate_limit")
    eventually(lambda: min(gaps(2)) >= 0.1, within=10)
    assert first.stop() == 0
    second = worker_process(*pool, app=APP)
    assert sum(gaps(5)) >= 0.5  # a second; a busy machine may begin one late, and so shorten the next gap
    client.app.control.rate_limit("act", None)

    eventually(lambda: min(gaps(5)) < 0.1, within=10)
    assert second.stop() == 0


def test_what_is_no_rate_is_refused(client: WorkerClient) -> None:
    with pytest.raises(ConfigurationError, match="'fast': expected '10/s'"):
        client.app.control.rate_limit("act", "fast")
