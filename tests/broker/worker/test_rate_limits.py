"""Rate limits: never more starts in any window than they say, and nothing else waits for that."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from amqp_tasks import App, AsyncResult
from amqp_tasks.errors import TaskDied, TaskExpired
from amqp_tasks.message import OutgoingMessage
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.inside import running
from support.pacing import assert_paced
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")


def call(client: WorkerClient, task: str, keys: Iterable[str], **options: Any) -> list[AsyncResult[Any]]:
    """In bulk: those that are sent one after the other may have had their turns before the last is sent."""
    return list(client.app.send_many((task, (key,), dict[str, Any](), options) for key in keys))


def starts_of(results: Iterable[AsyncResult[Any]]) -> list[float]:
    """The times of their first lines, when all have ended."""
    return [result.get(timeout=30)["started"] for result in results]


@pytest.mark.parametrize("pool", [("-c", "3"), ("-P", "threads", "-c", "3"), ("-P", "solo")])
def test_p033_a_node_starts_no_more_than_the_limit_in_any_window_and_other_tasks_flow(
    client: WorkerClient, worker_process: WorkerProcesses, raw_client: RawClient, pool: tuple[str, ...]
) -> None:
    """Row U022."""
    worker = worker_process(*pool, app=APP)

    paced = call(client, "paced", (f"paced-{number}" for number in range(35)))
    free = call(client, "act", (f"free-{number}" for number in range(50)))

    assert [result.get(timeout=10) for result in free] == [f"free-{number}" for number in range(50)]
    assert not all(result.ready() for result in paced)
    assert_paced(starts_of(paced), 10, 1.0)
    # No burst either: they are a tenth of a second apart.
    assert_paced(starts_of(paced), 5, 0.5)
    assert worker.stop() == 0
    assert raw_client.depth(QUEUE) == 0


def test_p033_who_waits_long_waits_in_the_broker_and_keeps_what_it_was_sent_with(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "2", app=APP)

    paced = call(client, "paced_slowly", ("a", "b", "c"), headers={"tenant": "acme"}, priority=3)
    ledger.wait_for("start")  # of whichever: each of the two processes has got one
    # Room for the next ones: neither slots nor prefetch are taken by those that wait.
    assert client.act("free").get(timeout=10) == "free"

    assert_paced(starts_of(paced), 1, 2.5)
    assert [result.get(timeout=1)["headers"] for result in paced] == [{"tenant": "acme"}] * 3
    assert [result.get(timeout=1)["priority"] for result in paced] == [3] * 3
    first, free, *others = ledger.keys("start")
    assert free == "free"
    assert sorted([first, *others]) == ["a", "b", "c"]
    assert worker.stop() == 0


def test_those_that_waited_for_a_busy_slot_do_not_catch_up(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", "--prefetch-multiplier", "20", app=APP)
    # What comes within a second of a slot becoming free is not handed back.
    client.act("warm").get(timeout=10)
    client.act("busy", "sleep", 0.7)
    ledger.wait_for("start", "busy")

    # The turns of most of them come while the slot is busy.
    paced = call(client, "paced", (f"paced-{number}" for number in range(9)))

    assert_paced(starts_of(paced), 5, 0.5)
    assert worker.stop() == 0


def test_what_is_sent_to_wait_for_its_turn_runs_once_though_its_connection_is_lost_before_the_confirm(
    vhost: Vhost, raw_client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirms: list[Callable[[], None]] = []
    is_back = threading.Event()
    runs: list[int] = []
    with App("paced", broker=vhost.url) as app:
        transport = app.transport

        @app.task(rate_limit="4/s", ignore_result=True)
        def paced(number: int) -> None:
            runs.append(number)

        def confirmed_late(message: OutgoingMessage, then: Callable[[Any], None], **options: Any) -> None:
            def report(error: Any) -> None:
                if is_back.is_set():
                    then(error)
                else:
                    confirms.append(lambda: then(error))

            publish(message, report, **options)

        for number in range(20):
            paced.delay(number)
        publish = transport.publish_nowait
        monkeypatch.setattr(transport, "publish_nowait", confirmed_late)
        with running(app, pool="solo", prefetch_multiplier=50):
            eventually(lambda: len(confirms) >= 8, within=10)
            delivered = transport.statistics().delivered
            _lose_consumers(transport)
            eventually(lambda: transport.statistics().delivered >= delivered + len(confirms), within=10)
            is_back.set()
            for confirm in confirms:
                confirm()
            eventually(lambda: len(runs) >= 20 and not _left(vhost, raw_client), within=30)

    assert sorted(runs) == list(range(20))


def _lose_consumers(transport: Any) -> None:
    for consumer in transport._core.consumers:
        transport._core.loop.put(lambda _none, link=consumer.link: link.drop("lost by the test"))


def _left(vhost: Vhost, raw_client: RawClient) -> int:
    """Messages in the task queue and in the timer wheel."""
    names = [queue["name"] for queue in vhost.queues()]
    return sum(raw_client.depth(name) for name in names if name.startswith(("default", "amqp_tasks.delay.")))


def test_a_retry_counts_as_a_start(client: WorkerClient, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-c", "2", app=APP)

    retried = call(client, "paced_again", ("a", "b"))

    results = [result.get(timeout=20) for result in retried]
    assert [result["retries"] for result in results] == [1, 1]
    # Four starts, half a second apart: the last two are three and two intervals after the first two.
    assert_paced(starts_of(retried), 1, 0.5)
    assert worker.stop() == 0


def test_promise_07_crashes_count_also_when_the_task_waits_in_the_broker_before_it_runs_again(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "2", app=APP, env={"AMQP_TASKS_TASK_CRASH_LIMIT": "2"})

    [killer] = call(client, "paced_killer", ("boom",))

    with pytest.raises(TaskDied, match="2 times"):
        killer.get(timeout=20)
    assert ledger.keys("start") == ["boom", "boom"]
    assert worker.stop() == 0


def test_a_task_that_expires_while_it_waits_for_its_turn_is_not_run(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)
    [first] = call(client, "paced_slowly", ("first",))
    [short] = call(client, "paced_slowly", ("short",), expires=1.0)

    with pytest.raises(TaskExpired):
        short.get(timeout=20)
    assert first.get(timeout=10)["retries"] == 0
    assert ledger.keys("start") == ["first"]
    assert worker.stop() == 0


@pytest.mark.parametrize("is_killed", [False, True])
def test_nothing_is_lost_when_a_node_ends_while_tasks_wait_for_their_turn(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    is_killed: bool,
) -> None:
    sent = {f"fast-{number}" for number in range(30)} | {f"slow-{number}" for number in range(3)}
    first = worker_process("-c", "2", app=APP)
    call(client, "paced", sorted(key for key in sent if key.startswith("fast")))
    call(client, "paced_slowly", sorted(key for key in sent if key.startswith("slow")))
    ledger.wait_for("done", count=4)

    if is_killed:
        first.kill_all()
    else:
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
    done_before = set(ledger.keys("done"))
    second = worker_process("-c", "2", app=APP)

    assert done_before < sent
    eventually(lambda: set(ledger.keys("done")) == sent, within=30)
    assert second.stop() == 0
    assert_conserved(sent, ledger, raw_client)
    if not is_killed:
        assert max(ledger.counts("done").values()) == 1


def test_c069_limits_can_be_switched_off_for_a_worker(
    client: WorkerClient, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_WORKER_DISABLE_RATE_LIMITS": "1"})

    starts = [
        result.get(timeout=10)["started"]
        for result in call(client, "paced_slowly", (str(number) for number in range(9)))
    ]

    gaps = [later - sooner for sooner, later in itertools.pairwise(sorted(starts))]
    assert min(gaps) < 2.0
    assert worker.stop() == 0
