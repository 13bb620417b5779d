"""Sharing work, recycling processes, order, hoarding, names and queues."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

import pytest

from amqp_routing import Exchange, ExchangeType
from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")


def test_two_nodes_share_the_work_and_run_each_task_once(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    sent = {f"key-{n}" for n in range(1000)}
    nodes = [worker_process("-c", "2", "-n", f"node{n}@%h", app=APP) for n in range(2)]

    client.many(sorted(sent), "sleep", 0.001)

    eventually(lambda: len(ledger.keys("done")) >= 1000, within=30)
    assert set(ledger.counts("done").values()) == {1}
    assert len({entry.pid for entry in ledger.entries("done")}) == 4
    assert [node.stop() for node in nodes] == [0, 0]
    assert_conserved(sent, ledger, raw_client)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_two_tasks_of_one_node_overlap(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    worker_process("-P", pool, "-c", "2", app=APP)
    results = [client.act(f"{n}", "wait", str(gate)) for n in range(2)]

    started = ledger.wait_for("start", count=2)
    gate.touch()

    assert [result.get(timeout=10) for result in results] == ["0", "1"]
    assert len({entry.pid for entry in started}) == (2 if pool == "prefork" else 1)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_process_is_replaced_after_so_many_tasks_and_none_is_lost(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, pool: str
) -> None:
    sent = {f"key-{n}" for n in range(60)}
    worker = worker_process("-P", pool, "-c", "1", "--max-tasks-per-child", "10", app=APP)

    client.many(sorted(sent))

    eventually(lambda: set(ledger.keys("done")) == sent, within=20)
    assert set(ledger.counts("done").values()) == {1}
    assert max(Counter(entry.pid for entry in ledger.entries("done")).values()) == 10
    assert worker.stop() == 0
    assert_conserved(sent, ledger, raw_client)


def test_a_worker_process_shares_all_that_it_needs_and_imports_nothing(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    """Row U035."""
    worker_process("-c", "1", app=APP)
    assert client.act("first").get(timeout=10) == "first"

    assert client.act("second", "imported").get(timeout=10) == []


@pytest.mark.parametrize("action", ["grow", "no-memory"])
def test_a_process_short_of_memory_is_replaced(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, action: str
) -> None:
    """Row U026."""
    limits = ("--max-memory-per-child", "150000") if action == "grow" else ()
    worker = worker_process("-c", "1", *limits, app=APP)
    client.act("before").get(timeout=10)

    client.act("large", action, 200_000_000).get(timeout=10, propagate=False)
    client.act("after").get(timeout=10)

    pids = [entry.pid for entry in ledger.entries("start")]
    assert pids[0] == pids[1] != pids[2]
    assert worker.stop() == 0


def test_no_task_waits_behind_a_long_one_while_a_slot_elsewhere_is_idle(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    """Row U021."""
    gate = tmp_path / "gate"
    first = worker_process("-c", "1", "--prefetch-multiplier", "20", "-n", "first@%h", app=APP)
    long_one = client.act("long", "wait", str(gate))
    ledger.wait_for("start", "long")
    results = [client.act(f"short-{n}") for n in range(10)]
    second = worker_process("-c", "1", "-n", "second@%h", app=APP)

    for result in results:
        result.get(timeout=20)

    assert "long" not in ledger.keys("done")
    gate.touch()
    assert long_one.get(timeout=10) == "long"
    assert client.act("again").get(timeout=10) == "again"
    assert [worker.stop() for worker in (first, second)] == [0, 0]


def test_higher_priority_runs_first_whatever_was_prefetched(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    """Row U078."""
    gate = tmp_path / "gate"
    settings = {
        "task_default_queue_type": "classic",
        "task_create_missing_queue_type": "classic",
        "task_queue_max_priority": 9,
    }
    env = {f"AMQP_TASKS_{name.upper()}": str(value) for name, value in settings.items()}
    with WorkerClient(vhost.url, **settings) as client:
        worker = worker_process("-c", "1", "--prefetch-multiplier", "30", app=APP, env=env)
        client.act("first", "wait", str(gate))
        ledger.wait_for("start", "first")
        results = [client.act(f"p{n % 3}-{n}", priority=n % 3) for n in range(12)]
        worker.wait_output("received$", count=13)  # confirmed is not yet delivered
        gate.touch()
        for result in results:
            result.get(timeout=10)

    order = [key[1] for key in ledger.keys("start")[1:]]
    assert order == sorted(order, reverse=True)
    assert worker.stop() == 0


def test_queues_take_turns_by_their_weights(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    env = {"AMQP_TASKS_WORKER_QUEUE_WEIGHTS": '{"much": 3, "little": 1}'}
    worker = worker_process("-Q", "much,little", "-c", "1", "--prefetch-multiplier", "30", env=env)
    client.act("first", "wait", str(gate), queue="much")
    ledger.wait_for("start", "first")
    # In bulk: they are handed back when the slot has been busy for a second.
    results = client.app.send_many(
        ("act", (f"{queue}-{n}",), {}, {"queue": queue}) for queue in ("little", "much") for n in range(12)
    )
    worker.wait_output("received$", count=25)
    gate.touch()
    results.get(timeout=15)

    queues = [key.split("-")[0] for key in ledger.keys("start")[1:]]
    assert Counter(queues[:12]) == {"much": 9, "little": 3}
    assert worker.stop() == 0


def test_only_the_queues_asked_for_are_consumed(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    for name in ("a", "b", "c"):
        client.act(name, queue=name)

    worker = worker_process("-Q", "a,b", app=APP)

    ledger.wait_for("done", count=2)
    assert worker.stop() == 0
    assert set(ledger.keys("done")) == {"a", "b"}
    assert raw_client.depth("c") == 1


def test_the_banner_names_what_is_consumed_and_hides_the_password(
    vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-Q", "a,b", "-c", "3", "-n", "me@%%-%n", app=APP)

    output = worker.output
    assert "- a: exchange=(default) key=a type=quorum" in output
    assert "concurrency: 3 (prefork)" in output
    assert "guest:**@" in output
    assert ":guest@" not in output
    assert worker.wait_output(r"me@%-\w+ ready\.")  # then the banner is whole
    tasks = re.findall(r"^- (\w+)$", worker.output.split("[tasks]")[1], re.MULTILINE)
    assert tasks == sorted(tasks)
    assert {"act", "act_early"} <= set(tasks)
    quiet = worker_process("-q", "-c", "1", app=APP)
    assert "[config]" not in quiet.output


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("-Q", "nope"), {"AMQP_TASKS_TASK_CREATE_MISSING_QUEUES": "false"}, "unknown queue 'nope'"),
        (("-X", "nope"), {}, "cannot exclude queue 'nope'"),
        (("-X", QUEUE), {}, "no queue is left"),
        (("-P", "solo", "--max-tasks-per-child", "3"), {}, "worker_max_tasks_per_child"),
        ((), {"AMQP_TASKS_BROKER_URL": "memory://", "AMQP_TASKS_WORKER_POOL": "prefork"}, "memory://"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    worker_process: WorkerProcesses,
    vhost: Vhost,
    arguments: tuple[str, ...],
    env: dict[str, str],
    said: str,
) -> None:
    worker = worker_process(*arguments, app=APP, env=env, ready=None)

    assert worker.wait() not in (0, None)
    line = worker.wait_output("error: ")
    assert said in line
    assert "Traceback" not in worker.output


def test_a_worker_in_a_thread_runs_tasks_and_stops(vhost: Vhost) -> None:
    with App("embedded", broker=vhost.url, task_default_queue="embedded") as app:
        seen: list[int] = []

        @app.task
        def add(x: int, y: int) -> int:
            seen.append(threading.get_ident())
            return x + y

        worker = app.Worker()
        thread = threading.Thread(target=worker.start)
        thread.start()
        assert worker.ready.wait(10)

        assert add.delay(2, 3).get(timeout=10) == 5
        assert worker.is_consuming
        assert worker.stop(timeout=5)
        thread.join(5)
        assert seen == [thread.ident]
        assert not worker.is_consuming
        with pytest.raises(RuntimeError, match="started once"):
            worker.start()


def test_prefork_is_refused_outside_of_the_main_thread(vhost: Vhost) -> None:
    with App("embedded", broker=vhost.url) as app:
        worker = app.Worker(pool="prefork")
        raised: list[Exception] = []

        def start() -> None:
            try:
                worker.start()
            except ConfigurationError as exc:
                raised.append(exc)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join(10)

        assert "main thread" in str(raised[0])


def test_a_stop_before_the_start_forbids_it(vhost: Vhost) -> None:
    with App("embedded", broker=vhost.url) as app:
        worker = app.Worker(pool="solo")

        assert worker.stop()
        with pytest.raises(RuntimeError):
            worker.start()


def test_a_queue_that_is_deleted_under_a_worker_is_declared_again_by_it(
    client: WorkerClient, raw_client: RawClient, worker_process: WorkerProcesses
) -> None:
    """Row U011: with its dead-letter queue, and nobody has to send anything first."""
    worker_process("-c", "1")

    raw_client.delete(f"{QUEUE}.dead")
    raw_client.delete(QUEUE)  # seen at once, so it goes last

    eventually(lambda: raw_client.consumers(QUEUE) == 1, within=20)
    assert raw_client.depth(f"{QUEUE}.dead") == 0
    assert client.act("after").get(timeout=20) == "after"


def test_a_task_of_a_fanout_exchange_runs_once_on_each_worker(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    """As the page on routes shows it: a queue for each worker, the exchange alone for those who call."""
    everybody = Exchange("all", ExchangeType.FANOUT)
    for node in ("a", "b"):
        worker_process("-c", "2", app="support.fanout_app:app", env={"NODE": node})

    with App("caller", broker=vhost.url, task_queues=[everybody]) as app:
        for number in range(3):
            app.send_task("act", (f"reload-{number}",), exchange="all", ignore_result=True)

    ledger.wait_for("done", count=6)
    assert ledger.counts("done") == {f"reload-{number}": 2 for number in range(3)}
