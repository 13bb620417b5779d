"""A reply queue for which nobody waits is not consumed, and who calls again has his result all the same."""

from __future__ import annotations

import threading

from amqp_tasks import App
from amqp_tasks.backends.rpc import RpcBackend
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._connection import LinkState
from support import RawClient, eventually
from support.apps import MakeApp, RunWorker, echo

SOON = 0.1
NEVER = 600.0
"""Seconds without use for tests that close the consumer themselves."""


def backend_of(app: App) -> RpcBackend:
    backend = app.backend
    assert isinstance(backend, RpcBackend)
    return backend


def has_no_connection(app: App) -> bool:
    transport = app.transport
    assert isinstance(transport, RabbitTransport)
    core = transport._started()
    return not core.consumers and core.link.state is LinkState.IDLE


def test_u038_both_connections_of_a_caller_are_closed_and_opened_again_by_the_next_call(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app(broker_idle_timeout=SOON)
    task = app.task(echo)
    run_worker(app)
    kept = task.delay("first")
    assert kept.get(10) == "first"
    queue_name = backend_of(app)._declared_name

    for number in range(3):
        eventually(lambda: has_no_connection(app), 10)
        assert task.delay(number).get(10) == number

    assert backend_of(app).reply_to(timeout=5) == queue_name
    assert kept.get(10) == "first"
    assert app.backend.statistics().lost == 0


def test_a_result_that_is_waited_for_is_consumed_however_long_it_takes(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app(broker_idle_timeout=NEVER)
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True
    result = task.delay("late")
    delivery = eventually(lambda: worker.held[0])
    backend = backend_of(app)

    backend._rest()

    assert backend._is_consumed
    worker.run(delivery)
    assert result.get(10) == "late"
    backend._rest()
    assert not backend._is_consumed


def test_a_call_that_races_the_rest_gets_its_result(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app(broker_idle_timeout=NEVER)
    task = app.task(echo)
    run_worker(app)
    assert task.delay("first").get(10) == "first"
    backend = backend_of(app)
    rested, is_over = list[bool](), threading.Event()

    def rest_again_and_again() -> None:
        while not is_over.is_set():
            backend._rest()
            rested.append(backend._rests)

    resting = threading.Thread(target=rest_again_and_again)
    resting.start()
    try:
        for number in range(80):
            assert task.delay(number).get(10) == number
    finally:
        is_over.set()
        resting.join(30)

    assert app.backend.statistics().lost == 0
    # Else nothing was raced.
    assert rested.count(True) > 5
    assert rested.count(False) > 5


def test_a_call_between_the_name_of_its_queue_and_its_entry_gets_its_result(
    make_app: MakeApp, run_worker: RunWorker
) -> None:
    app = make_app(broker_idle_timeout=NEVER)
    task = app.task(echo)
    run_worker(app)
    assert task.delay("first").get(10) == "first"
    backend = backend_of(app)
    name = backend.reply_to(timeout=5)

    backend._rest()
    entry = backend.expect("an id", reply_to=name)

    assert backend._is_consumed
    assert entry.peek() is None


def test_a_queue_that_went_while_it_rested_is_declared_again(
    make_app: MakeApp, run_worker: RunWorker, raw_client: RawClient
) -> None:
    app = make_app(broker_idle_timeout=NEVER)
    task = app.task(echo)
    run_worker(app)
    assert task.delay("first").get(10) == "first"
    backend = backend_of(app)
    backend._rest()
    name = backend._declared_name

    app.transport.delete_queue(name)

    assert task.delay("second").get(10) == "second"
    assert backend.reply_to(timeout=5) == name
    assert app.backend.statistics().lost == 0
