"""Limits that hold for all nodes together: what the starts say, whatever happens to nodes and tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from amqp_tasks import AsyncResult
from amqp_tasks.errors import TaskRevokedError
from amqp_tasks.message import token_plan
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.pacing import assert_paced
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
FAST, SLOW = token_plan("shared", 4), token_plan("shared_slowly", 40 / 60)
pytestmark = pytest.mark.usefixtures("ledger")


def call(client: WorkerClient, task: str, keys: Iterable[str], **options: Any) -> list[AsyncResult[Any]]:
    return [client.app.send_task(task, (key,), **options) for key in keys]


def starts(ledger: Ledger, prefix: str) -> list[float]:
    return sorted(entry.at for entry in ledger.entries("start") if entry.key.startswith(prefix))


def assert_one_token(raw_client: RawClient, plan: Any) -> None:
    """In nobody's hands; between the two looks, and in the broker, it may be on its way from one queue to the other."""

    def is_there() -> bool:
        return raw_client.depth(plan.queue_name) + raw_client.depth(plan.waiting_name) == 1

    eventually(is_there)


def is_held(client: RawClient, held: list[Any]) -> bool:
    client.connection.process_data_events(0.1)
    return len(held) == 1


@pytest.mark.parametrize("pool", [("-c", "2"), ("-P", "threads", "-c", "3"), ("-P", "solo")])
def test_p033_three_nodes_together_start_no_more_than_the_limit_and_other_tasks_flow(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    pool: tuple[str, ...],
) -> None:
    """Row U022."""
    workers = [worker_process(*pool, "-n", f"node{number}@here", app=APP) for number in range(3)]

    call(client, "shared", (f"shared-{number}" for number in range(30)))
    free = [client.act(f"free-{number}") for number in range(50)]

    assert [result.get(timeout=10) for result in free] == [f"free-{number}" for number in range(50)]
    ledger.wait_for("done", count=50 + 30, within=30)
    assert_paced(starts(ledger, "shared"), 1, 0.25)
    assert len({entry.pid for entry in ledger.entries("start") if entry.key.startswith("shared")}) >= 2
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    assert raw_client.depth(QUEUE) == 0
    assert_one_token(raw_client, FAST)


def test_p033_of_a_fast_limit_no_window_sees_more_either(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    workers = [worker_process("-c", "2", "-n", f"node{number}@here", app=APP) for number in range(2)]

    call(client, "shared_fast", (f"fast-{number}" for number in range(300)), ignore_result=True)

    ledger.wait_for("done", count=300, within=60)
    assert_paced(starts(ledger, "fast"), 50, 0.5)
    assert [worker.stop() for worker in workers] == [0, 0]


def test_a_nodes_own_limit_holds_beside_that_of_all(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "2", app=APP)

    call(client, "shared_both", (f"both-{number}" for number in range(8)))

    ledger.wait_for("done", count=8, within=20)
    assert_paced(starts(ledger, "both"), 1, 0.5)
    assert worker.stop() == 0


def test_a_token_in_the_hands_of_one_that_dies_goes_to_another(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, vhost: Vhost
) -> None:
    worker = worker_process("-c", "1", app=APP)
    call(client, "shared", ("first",))
    ledger.wait_for("done", "first")
    eventually(lambda: raw_client.depth(FAST.queue_name) == 1, within=10)
    with RawClient(vhost.url) as other:
        held: list[Any] = []
        other.channel.basic_consume(FAST.queue_name, lambda *delivery: held.append(delivery))
        eventually(lambda: is_held(other, held), within=10)

        call(client, "shared", ("second",))
        # Another task that is sent later shows that this one was there.
        assert client.act("free").get(timeout=10) == "free"
        eventually(lambda: raw_client.consumers(FAST.queue_name) == 2, within=5)
        assert ledger.keys("start") == ["first", "free"]

    ledger.wait_for("done", "second")
    assert worker.stop() == 0


def test_nothing_is_lost_and_nothing_too_fast_when_a_node_is_killed(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    doomed, other = (worker_process("-c", "2", "-n", f"node{number}@here", app=APP) for number in range(2))
    sent = {f"shared-{number}" for number in range(30)}
    call(client, "shared", sorted(sent))
    ledger.wait_for("done", count=6)

    doomed.kill_all()

    eventually(lambda: set(ledger.keys("done")) == sent, within=40)
    # A token whose holder dies between a start and its rejection comes back at once: one start more.
    assert_paced(starts(ledger, "shared"), 1, 0.25, early=1)
    assert other.stop() == 0
    assert_conserved(sent, ledger, raw_client)
    assert_one_token(raw_client, FAST)


def test_a_token_too_many_is_taken_away(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    workers = [worker_process("-c", "1", "-n", f"node{number}@here", app=APP) for number in range(2)]
    # So many that some wait all the time, however fast two tokens more let them go.
    call(client, "shared", (f"shared-{number}" for number in range(600)))
    ledger.wait_for("done", count=2)

    for _ in range(2):
        raw_client.publish(FAST.queue_name)

    # Each process looks for itself, and one alone may take the surplus away.
    eventually(
        lambda: sum(worker.output.count("one too many and is taken away") for worker in workers) == 2,
        within=40,
    )
    before = len(starts(ledger, "shared"))
    ledger.wait_for("done", count=before + 10, within=20)
    assert_paced(starts(ledger, "shared")[before + 1 :], 1, 0.25)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert_one_token(raw_client, FAST)


@pytest.mark.parametrize("is_deleted", [False, True], ids=["purged", "deleted"])
def test_lost_tokens_are_made_anew(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    is_deleted: bool,
) -> None:
    workers = [worker_process("-c", "1", "-n", f"node{number}@here", app=APP) for number in range(2)]
    call(client, "shared_slowly", (f"slow-{number}" for number in range(6)))
    ledger.wait_for("done", count=2)
    eventually(lambda: raw_client.depth(SLOW.waiting_name) == 1, within=10)

    for name in (SLOW.waiting_name, SLOW.queue_name):
        (raw_client.delete if is_deleted else raw_client.purge)(name)
    assert len(ledger.keys("done")) < 6

    ledger.wait_for("done", count=6, within=60)
    if not is_deleted:
        # Those that are made anew wait first; a limit whose queues are gone begins anew.
        assert_paced(starts(ledger, "slow"), 1, 1.5)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert_one_token(raw_client, SLOW)


def test_a_paused_queue_and_a_revoked_task_take_no_turns(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", "-l", "debug", app=APP)
    results = call(client, "shared_slowly", (f"slow-{number}" for number in range(3)))
    ledger.wait_for("done", count=1)
    ran = ledger.keys("done")

    client.app.control.pause(QUEUE)
    worker.wait_output("heeds journal entry: pause")
    eventually(lambda: raw_client.depth(QUEUE) == 2, within=15)
    eventually(lambda: raw_client.depth(SLOW.queue_name) == 1, within=15)
    [left] = [each for each in results[:2] if not each.ready()]
    client.app.control.revoke(left.id)
    client.app.control.resume(QUEUE)

    with pytest.raises(TaskRevokedError):
        left.get(timeout=20)
    ledger.wait_for("done", count=2)
    assert len(ran) == 1
    assert worker.stop() == 0
    assert len(ledger.keys("start")) == 2
    assert_one_token(raw_client, SLOW)


def test_a_stop_hands_back_what_waits_for_a_token(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    sent = {f"slow-{number}" for number in range(5)}
    first = worker_process("-c", "2", app=APP)
    call(client, "shared_slowly", sorted(sent))
    ledger.wait_for("done", count=1)

    assert first.stop() == 0
    assert len(ledger.keys("done")) < 5
    assert_one_token(raw_client, SLOW)
    second = worker_process("-c", "2", app=APP)

    eventually(lambda: set(ledger.keys("done")) == sent, within=40)
    assert_paced(starts(ledger, "slow"), 1, 1.5)
    assert second.stop() == 0
    assert_conserved(sent, ledger, raw_client)
    assert max(ledger.counts("done").values()) == 1


def test_without_the_right_to_tokens_a_task_waits_and_others_run(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    work = r"(?!amqp_tasks\.rate\.).*"
    url = vhost.limited_url(configure=f"^{work}$", write=".*", read=f"^{work}$")
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": url})

    call(client, "shared", ("waits",))

    worker.wait_output("task shared waits: the tokens of its cluster_rate_limit", within=20)
    assert client.act("free").get(timeout=10) == "free"
    assert ledger.keys("start") == ["free"]
    assert worker.stop() == 0


def test_tokens_that_others_have_made_and_that_may_not_be_read_are_not_asked_for_again_and_again(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    vhost: Vhost,
) -> None:
    for queue in FAST.topology.queues:
        raw_client.declare(queue.name, queue.declared_arguments())
    url = vhost.limited_url(configure=".*", write=".*", read=r"^(?!amqp_tasks\.rate\.).*$")
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": url})

    call(client, "shared", ("waits",))

    worker.wait_output("no tokens can be had", within=20)
    assert client.act("free").get(timeout=10) == "free"
    assert worker.stop() == 0
    assert worker.output.count("no tokens can be had") <= 2
    assert ledger.keys("start") == ["free"]


def test_c069_limits_of_all_nodes_can_be_switched_off_too(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker = worker_process("-c", "1", app=APP, env={"AMQP_TASKS_WORKER_DISABLE_RATE_LIMITS": "1"})

    call(client, "shared_slowly", (str(number) for number in range(5)))

    ledger.wait_for("done", count=5)
    assert raw_client.depth(SLOW.queue_name) == -1
    assert worker.stop() == 0
