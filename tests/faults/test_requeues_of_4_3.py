"""Tasks that go back to their queue, as RabbitMQ has it from 4.3 on, by a scripted broker: a nack is not counted there."""

from __future__ import annotations

import pytest

from amqp_routing import DelayedRetryType, Queue
from amqp_tasks import App
from amqp_tasks.errors import Reject, TaskError
from support.inside import running
from support.scripted_broker import ScriptedBroker

DELAYED = Queue(
    "work", delayed_retry_type=DelayedRetryType.FAILED, delayed_retry_min=1.5, delayed_retry_max=9
)


@pytest.mark.parametrize(("queue", "rejects"), [(Queue("work"), 0), (DELAYED, 3)])
def test_rows_r02_r07_a_requeue_loop_ends_on_a_broker_that_does_not_count_nacks(
    queue: Queue, rejects: int
) -> None:
    runs: list[str] = []
    with (
        ScriptedBroker(version="4.3.0") as broker,
        App("looping", broker=broker.url, task_queues=[queue], task_requeue_limit=3) as app,
    ):

        @app.task(queue="work")
        def bounce() -> None:
            runs.append("run")
            raise Reject("not here", requeue=True)

        with (
            running(app, queues=["work"]),
            pytest.raises(TaskError, match=r"requeue-limit: .* 3 times"),
        ):
            bounce.delay().get(timeout=10)

        assert len(runs) == 4
        assert broker.seen["Basic.Reject"] == rejects
        assert broker.unsettled("work") == 0
        assert broker.unsettled("work.dead") == 1


def test_row_b038_the_arguments_of_delayed_retries_reach_the_broker() -> None:
    with ScriptedBroker(version="4.3.0") as broker:
        with App("declaring", broker=broker.url, task_queues=[DELAYED]) as app:
            app.task(name="one", queue="work")(lambda: None).delay()

        declared = dict(broker.declares)["work"]

    assert {name: value for name, value in declared.items() if "delayed" in name} == {
        "x-delayed-retry-type": "failed",
        "x-delayed-retry-min": 1500,
        "x-delayed-retry-max": 9000,
    }
