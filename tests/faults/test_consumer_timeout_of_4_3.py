"""The consumer timeout as RabbitMQ has it from 4.3 on, by a scripted broker: asked for, and a cancel when it has passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import Ledger, WorkerProcesses, eventually
from support.scripted_broker import ScriptedBroker
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

TIMEOUT = "x-consumer-timeout"


@pytest.mark.parametrize(("version", "asked"), [("4.3.0", 7_260_000), ("4.2.1", None)])
def test_rows_r04_r05_the_timeout_of_the_longest_task_is_asked_for_where_consumers_may(
    worker_process: WorkerProcesses, version: str, asked: int | None
) -> None:
    with ScriptedBroker(version=version) as broker:
        worker = worker_process(*_ONE, "--time-limit", "7200", env={"AMQP_TASKS_BROKER_URL": broker.url})

        assert worker.stop() == 0

    assert {arguments.get(TIMEOUT) for arguments in _of_tasks(broker)} == {asked}


def test_a_broker_that_refuses_the_timeout_is_consumed_from_without(
    worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    with (
        ScriptedBroker(version="4.3.0", refused_argument=TIMEOUT) as broker,
        WorkerClient(broker.url) as client,
    ):
        worker = worker_process(*_ONE, "--time-limit", "7200", env={"AMQP_TASKS_BROKER_URL": broker.url})
        assert client.act("one").get(timeout=10) == "one"

        assert worker.stop() == 0

    first, second = (TIMEOUT in arguments for arguments in _of_tasks(broker)[:2])
    assert (first, second) == (True, False)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_row_u087_what_a_cancelled_consumer_had_goes_on_and_is_not_run_beside_itself(
    worker_process: WorkerProcesses, ledger: Ledger, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    with ScriptedBroker(version="4.3.0") as broker, WorkerClient(broker.url) as client:
        worker = worker_process("-P", pool, "-c", "2", env={"AMQP_TASKS_BROKER_URL": broker.url})
        long = client.act("long", "wait", str(gate))
        ledger.wait_for("start", "long")
        consumed = len(_of_tasks(broker))

        broker.take_back(QUEUE)
        eventually(lambda: len(_of_tasks(broker)) > consumed or pool == "prefork")
        assert client.act("after").get(timeout=10) == "after"
        gate.touch()
        assert long.get(timeout=10) == "long"
        # What was held is settled only when its process has asked again.
        eventually(lambda: not broker.unsettled(QUEUE))

        assert worker.stop() == 0
    assert ledger.counts("start") == {"long": 1, "after": 1}


_ONE = ("-P", "prefork", "-c", "1")


def _of_tasks(broker: ScriptedBroker) -> list[dict[str, object]]:
    return [arguments for name, arguments in broker.consumes if name == QUEUE]
