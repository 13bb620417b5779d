"""Calls while the broker is away, deaf or differently arranged: each ends, and says how."""

from __future__ import annotations

import time

import pytest

from amqp_tasks.errors import NotSent, PublishError, SendUnknown, UnroutableError
from support import Ledger, PrivateNode, RawClient, TcpProxy, Vhost, WorkerProcesses, eventually
from support.points import POINTS
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
LIMIT = 10.0
"""Seconds in which a call with a timeout of two must have ended on a busy machine."""


@pytest.mark.slow
def test_promise_01_calls_that_wait_in_a_classic_queue_survive_a_restart_of_the_broker(
    private_node: PrivateNode, ledger: Ledger
) -> None:
    """A quorum queue keeps everything; a classic one only what is sent as persistent."""
    sent = {f"key-{number}" for number in range(20)}
    with WorkerClient(private_node.url, task_default_queue_type="classic") as client:
        client.many(sorted(sent))

    private_node.restart()


def test_promise_02_not_sent_was_never_stored_and_send_unknown_may_be(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, proxy: TcpProxy
) -> None:
    with WorkerClient(proxy.url_for(), task_publish_timeout=2.0) as client:
        client.act("before", ignore_result=True)
        proxy.half_open()
        with pytest.raises(SendUnknown) as unknown:
            client.act("unknown", task_id="the-same", ignore_result=True)
        proxy.refuse()
        with pytest.raises(NotSent):
            client.act("never", ignore_result=True)
        proxy.resume()
        again = client.act("unknown", task_id="the-same", ignore_result=True)

    assert again.id == "the-same"
    assert not isinstance(unknown.value, NotSent)
    worker = worker_process("-c", "1", app=APP)
    ledger.wait_for("done", "unknown")
    eventually(lambda: raw_client.depth(QUEUE) == 0)
    assert worker.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["down", "paused"])
def test_promise_03_a_call_ends_in_time_whatever_the_broker_does(
    private_node: PrivateNode, private_client: WorkerClient, fault: str
) -> None:
    """Rows U031, U032."""
    private_client.act("before")
    if fault == "down":
        private_node.kill()
    else:
        private_node.pause()

    began = time.monotonic()
    with pytest.raises(PublishError):
        private_client.act("during", timeout=2.0)

    assert time.monotonic() - began < LIMIT


def test_promise_04_a_call_whose_message_was_cut_off_on_its_way_is_sent_again(vhost: Vhost) -> None:
    """The law finds it in its queue, or it was lost."""
    with TcpProxy(vhost.url, knows_frames=True) as proxy, WorkerClient(proxy.url_for()) as client:
        client.act("before", ignore_result=True)
        proxy.cut_at(POINTS["within the publish"])

        client.act("cut off", ignore_result=True)

        assert proxy.was_at_point.wait(10)


def test_promise_05_a_message_to_nowhere_is_an_error_and_a_deleted_queue_is_declared_again(
    client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    first = worker_process("-c", "1", app=APP)
    raw_client.channel.exchange_declare("nowhere", "direct", durable=True)
    client.act("first").get(timeout=10)

    with pytest.raises(UnroutableError, match=r"nowhere.*lost-key"):
        client.act("lost", exchange="nowhere", routing_key="lost-key")
    # While nobody consumes: RabbitMQ 3.10 leaves a consumer dangling whose queue is deleted and declared again at once.
    assert first.stop() == 0
    raw_client.delete(QUEUE)
    result = client.act("second")
    second = worker_process("-c", "1", app=APP)

    assert result.get(timeout=20) == "second"
    assert second.stop() == 0


@pytest.mark.usefixtures("ledger")
def test_promise_19_a_queue_declared_otherwise_is_explained_at_the_start_of_a_worker(
    vhost: Vhost, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Row U046."""
    raw_client.declare(QUEUE)

    worker = worker_process("-c", "1", app=APP, ready=None)

    assert worker.wait(within=20) != 0
    for fact in (f"queue {QUEUE!r}", "x-queue-type=quorum", "topology check"):
        assert fact in worker.output
    assert "Traceback" not in worker.output
