"""Waiting for results over the reply queue: threads, timeouts, callbacks, and each way a wait ends."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amqp_tasks.app import AsyncResult, allow_join_result
from amqp_tasks.errors import (
    ClosedError,
    ConfigurationError,
    ResultTimeout,
    ResultUnavailable,
)
from support.apps import MakeApp, RunWorker, echo, fail
from support.eventually import eventually
from support.raw import RawClient
from support.vhosts import Vhost


def test_a_timeout_ends_the_wait_and_not_the_task(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay(1)

    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert (result.state, result.result, result.ready()) == ("PENDING", None, False)

    delivery = eventually(lambda: worker.held[0])
    worker.run(delivery)
    assert result.get(5) == 1


def test_64_threads_share_the_reply_queue(make_app: MakeApp, run_worker: RunWorker, vhost: Vhost) -> None:
    """Row R13."""
    app = make_app()
    task = app.task(echo)
    run_worker(app)

    def calls(thread: int) -> list[int]:
        return [task.delay(thread * 1000 + i).get(20) for i in range(16)]

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(calls, range(64)))

    assert found == [[thread * 1000 + i for i in range(16)] for thread in range(64)]
    replies = [queue for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.reply.")]
    assert len(replies) == 1


def test_get_inside_a_task_is_refused_unless_allowed(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    other = AsyncResult[Any]("other", app=app)

    @app.task(bind=True)
    def careless(self: Any) -> str:
        other.get(1)
        return "not reached"

    @app.task
    def careful() -> str:
        with allow_join_result():
            try:
                other.get(1)
            except ResultUnavailable:
                return "asked"
        return "not reached"

    run_worker(app)

    with pytest.raises(ConfigurationError, match="allow_join_result"):
        careless.delay().get(5)
    assert careful.delay().get(5) == "asked"


def test_callbacks_run_when_the_result_is_there(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    bad = app.task(fail)
    run_worker(app)
    heard: list[str] = []
    done = threading.Event()

    task.delay(1).then(lambda result: heard.append(f"ok {result.result}"))
    failed = bad.delay("key").then(
        lambda result: heard.append("wrong"), on_error=lambda result: heard.append(result.state)
    )
    failed.on_ready(lambda result: done.set())

    assert done.wait(10)
    eventually(lambda: sorted(heard) == ["FAILURE", "ok 1"])


def test_a_callback_that_would_wait_for_its_own_thread_is_refused(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True  # a result that is there already calls back on the thread that asks
    other = app.send_task("nobody", queue="lonely")
    raised: list[Exception] = []
    done = threading.Event()

    def wait_for_other(result: AsyncResult[Any]) -> None:
        try:
            other.get(5)
        except RuntimeError as exc:
            raised.append(exc)
        done.set()

    task.delay(1).on_ready(wait_for_other)
    worker.run(eventually(lambda: worker.held[0]))

    assert done.wait(10)
    assert "then()" in str(raised[0])


def test_a_wait_for_a_queue_without_consumer_says_so(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row U033."""
    monkeypatch.setattr("amqp_tasks.app._result._DIAGNOSE_AFTER", 0.2)
    app = make_app()
    result = app.send_task("t", queue="lonely")

    with caplog.at_level(logging.WARNING, "amqp_tasks.app"), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 60)
        eventually(lambda: [getattr(record, "queue", None) for record in caplog.records] == ["lonely"])
        app.close()
        assert isinstance(waiting.exception(10), ClosedError)


def test_closing_ends_waits(make_app: MakeApp) -> None:
    app = make_app()
    result = app.send_task("t")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 30)
        eventually(lambda: bool(result._expectation().waiters))  # type: ignore[attr-defined]
        app.close()
        with pytest.raises(ClosedError):
            waiting.result(10)


def test_states_on_the_way_are_heard(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    result = app.send_task("t")
    heard: list[str] = []

    def send(status: str, value: object) -> None:
        body = json.dumps({"task_id": result.id, "status": status, "result": value, "traceback": None})
        raw_client.publish(
            app.backend.reply_to(timeout=1),
            body.encode(),
            correlation_id=result.id,
            content_type="application/json",
            content_encoding="utf-8",
        )

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result.get, 10, on_message=lambda record: heard.append(str(record.status)))
        eventually(lambda: bool(result._expectation().waiters))  # type: ignore[attr-defined]
        send("STARTED", {"pid": 7})
        send("SUCCESS", 5)

        assert waiting.result(10) == 5
    assert heard == ["STARTED", "SUCCESS"]


def test_sequential_calls_are_quick(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    run_worker(app)
    task.delay(0).get(5)

    seconds = list[float]()
    for i in range(20):
        started = time.monotonic()
        task.delay(i).get(5)
        seconds.append(time.monotonic() - started)

    # The quickest: nobody waits for a fixed time before he looks, whatever else the machine does.
    assert min(seconds) < 0.1
