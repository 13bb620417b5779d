"""Results that nobody asks for, or that would be lost: bounds, lost connections, deleted queues, restarts, forks."""

from __future__ import annotations

import gc
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from amqp_tasks.app import App
from amqp_tasks.errors import (
    ResultLost,
    ResultUnavailable,
)
from support.apps import MakeApp, RunWorker, echo
from support.eventually import eventually
from support.plain_worker import PlainWorker
from support.private import PrivateNode
from support.proxy import TcpProxy
from support.raw import RawClient
from support.vhosts import Vhost


def test_results_nobody_can_ask_for_are_dropped_and_counted(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    kept = task.delay("kept")

    for i in range(50):
        task.delay(i)
    gc.collect()

    assert kept.get(5) == "kept"

    def all_came() -> None:
        statistics = app.backend.statistics()
        assert statistics.dropped + statistics.received == 51
        assert statistics.expected == 1

    eventually(all_came)


def test_forget_drops_the_result(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    result = task.delay(1)
    result.get(5)

    result.forget()

    with pytest.raises(ResultUnavailable):
        result.get(1)


def test_unread_results_are_bounded_and_the_rest_comes_when_asked_for(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient, vhost: Vhost
) -> None:
    app = make_app(result_cache_max=10)
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    results = task.map_async(range(3000))
    eventually(lambda: len(worker.held) == 500)
    worker.is_holding = False
    for delivery in worker.held:
        worker.run(delivery)
    queue_name = app.backend.reply_to(timeout=1)

    eventually(lambda: raw_client.depth(queue_name) > 0, 10)
    received = app.backend.statistics().received

    assert received < 3000
    assert results.get(20) == list(range(3000))


def test_a_lost_connection_loses_no_result(make_app: MakeApp, run_worker: RunWorker, proxy: TcpProxy) -> None:
    app = make_app(broker=proxy.url_for())
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay("after the cut")
    delivery = eventually(lambda: worker.held[0])

    proxy.cut()
    worker.run(delivery)

    assert result.get(20) == "after the cut"


def test_a_deleted_reply_queue_tells_who_waits_and_serves_later_calls(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)
    eventually(lambda: bool(worker.held))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 20)
        raw_client.channel.queue_delete(app.backend.reply_to(timeout=1))
        with pytest.raises(ResultLost, match=result.id):
            waiting.result(20)

    worker.is_holding = False
    assert task.delay(2).get(20) == 2


def test_a_result_that_comes_after_the_queue_was_back_wins_over_the_loss(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)
    delivery = eventually(lambda: worker.held[0])
    raw_client.channel.queue_delete(app.backend.reply_to(timeout=1))
    with pytest.raises(ResultLost):
        result.get(20)
    for ask in (result.ready, result.successful, lambda: result.state, lambda: result.result):
        with pytest.raises(ResultLost):
            ask()

    worker.is_holding = False
    assert task.delay(2).get(20) == 2
    worker.run(delivery)

    eventually(lambda: app.backend.statistics().received == 2)
    assert (result.ready(), result.get(5)) == (True, 1)


def test_who_may_not_read_results_leaves_one_queue_and_gets_them_once_he_may(
    make_app: MakeApp, run_worker: RunWorker, vhost: Vhost, caplog: pytest.LogCaptureFixture
) -> None:
    url = vhost.limited_url(configure=".*", write=".*", read=r"^(?!amqp_tasks\.reply).*")
    app = make_app(broker=url)
    task = app.task(echo)
    run_worker(app)

    with caplog.at_level(logging.CRITICAL):
        for _ in range(3):
            with pytest.raises(ResultLost):
                task.delay(1).get(10)
    vhost.permit(url, configure=".*", write=".*", read=".*")

    assert task.delay(2).get(10) == 2
    eventually(lambda: len(_reply_queues(vhost)) == 1)
    app.close()
    eventually(lambda: _reply_queues(vhost) == [])


def _reply_queues(vhost: Vhost) -> list[str]:
    return [each["name"] for each in vhost.queues() if each["name"].startswith("amqp_tasks.reply")]


def test_a_result_survives_a_broker_restart(private_node: PrivateNode) -> None:
    app = App("proj", broker=private_node.url)
    task = app.task(echo)
    worker = PlainWorker(app, private_node.url).start()
    try:
        worker.is_holding = True
        result = task.delay("over the restart")
        eventually(lambda: bool(worker.held))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(result.get, 100)
            worker.is_holding = False
            private_node.restart()
            assert waiting.result(105) == "over the restart"
    finally:
        app.close()
        worker.stop()


def test_a_forked_child_has_its_own_reply_queue(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    result = task.delay("parent")
    assert result.get(5) == "parent"
    pending = app.send_task("nobody", queue="lonely")
    reader, writer = os.pipe()

    pid = os.fork()
    if pid == 0:
        answer = b"?"
        try:
            try:
                pending.get(1)
            except ResultUnavailable:
                answer = str(task.delay("child").get(15)).encode()
        finally:
            os.write(writer, answer)
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        assert answer == b"child"
        assert task.delay("parent again").get(10) == "parent again"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
