"""One queue, two systems: what each declares must be what the other finds."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import TopologyMismatch
from support import RawClient, Vhost, WorkerProcesses, new_vhost
from support.brokers import BrokerNode
from support.interop_app import SETTINGS
from support.stock_client import StockClient

APP = "support.interop_app:keeping"
DEAD = {"x-queue-type": "quorum"}


def test_our_usual_arguments_clash_and_the_error_names_queue_argument_and_both_values(
    vhost: Vhost, raw_client: RawClient
) -> None:
    raw_client.declare("clash")
    app = App("ours", broker=vhost.url, **{**SETTINGS, "task_default_queue": "clash"}, task_publish_timeout=5)
    app.conf.update(task_dead_letter_queues=True)

    try:
        with pytest.raises(TopologyMismatch, match="clash") as caught:
            app.send_task("echo", (1,))
    finally:
        app.close()

    assert "x-dead-letter-exchange" in str(caught.value)


@pytest.fixture
def own_vhost(broker: BrokerNode) -> Any:
    """A virtual host of one test, unlike the module's."""
    with new_vhost(broker.url, broker.management) as made:
        yield made


def test_with_topology_none_unreadable_messages_of_a_stock_queue_are_kept_in_a_dead_queue_made_by_hand(
    own_vhost: Vhost, worker_process: WorkerProcesses, environment: dict[str, str]
) -> None:
    env = environment | {"AMQP_TASKS_BROKER_URL": own_vhost.url}
    with RawClient(own_vhost.url) as raw, StockClient(env) as stock:
        raw.declare("celery.dead", DEAD)
        stock.send("echo", "declares the queue as stock Celery does")
        worker_process("-c", "1", app=APP, env=env)

        raw.publish("celery", b"not for us")
        unknown = stock.call("no.such.task")

        assert unknown.classes[0] == "celery.exceptions.NotRegistered"
        assert [raw.get("celery.dead").headers["x-error-reason"] for _ in range(2)] == [
            "missing-header",
            "unknown-task",
        ]
        assert raw.depth("celery") == 0


def test_a_protocol_1_client_is_not_served_and_does_no_harm(
    own_vhost: Vhost, worker_process: WorkerProcesses, environment: dict[str, str]
) -> None:
    env = environment | {"AMQP_TASKS_BROKER_URL": own_vhost.url}
    with RawClient(own_vhost.url) as raw:
        raw.declare("celery.dead", DEAD)
        with StockClient(env | {"STOCK_TASK_PROTOCOL": "1"}) as old:
            old.send("echo", "old")
        worker_process("-c", "1", app=APP, env=env)

        dead = raw.get("celery.dead")

        assert dead.headers["x-error-reason"] == "missing-header"
        assert "protocol 1" in dead.headers["x-error-message"]
        assert b'"old"' in dead.body
