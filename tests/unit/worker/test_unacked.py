"""Which tasks may run for longer than the broker waits for an ack, and what is done about it."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_routing import Queue, QueueType
from amqp_tasks import App
from amqp_tasks.transport import ServerInfo
from amqp_tasks.worker._options import Asked, WorkerOptions, resolve
from amqp_tasks.worker._unacked import consumer_arguments, timeout_note, unlimited_tasks

HOUR = 3600.0


def server(*version: int) -> ServerInfo:
    return ServerInfo(product="RabbitMQ", version=version, url="amqp://h//")


def app_with(limit: float | None, **settings: Any) -> tuple[App, WorkerOptions]:
    app = App("unacked", **settings)

    @app.task(name="long", time_limit=limit)
    def long() -> None: ...

    @app.task(name="early", time_limit=9 * HOUR, acks_late=False)
    def early() -> None: ...

    @app.task(name="short", time_limit=10.0)
    def short() -> None: ...

    app.finalize()
    return app, resolve(app, Asked(), default_pool="prefork")


@pytest.mark.parametrize("version", [(3, 10, 8), (3, 12), (4, 0, 5)])
def test_row_u015_a_limit_beyond_the_brokers_timeout_is_warned_of(version: tuple[int, ...]) -> None:
    note = timeout_note(*app_with(HOUR), server(*version))

    assert note is not None
    assert note.startswith("task long may run for longer than the consumer_timeout of the broker (1800 s")
    assert "consumer_timeout = 3660000 in rabbitmq.conf" in note
    assert ("Queue(consumer_timeout=3660)" in note) is (version >= (3, 12))


@pytest.mark.parametrize(
    ("limit", "settings"),
    [
        (1700.0, {}),
        (None, {}),
        (HOUR, {"broker_consumer_timeout": 3660}),
        (HOUR, {"broker_consumer_timeout": None}),
    ],
)
def test_what_the_broker_allows_is_not_warned_of(limit: float | None, settings: dict[str, Any]) -> None:
    app, options = app_with(limit, **settings)

    assert timeout_note(app, options, server(4, 0)) is None
    assert consumer_arguments(app, options) == {}


def test_the_margin_counts_as_part_of_the_run() -> None:
    assert timeout_note(*app_with(1750.0), server(4, 0)) is not None


def test_the_timeout_of_a_queue_counts_where_the_broker_heeds_it() -> None:
    app, options = app_with(HOUR, task_queues=[Queue("default", consumer_timeout=2 * HOUR)])

    assert timeout_note(app, options, server(3, 12)) is None
    assert timeout_note(app, options, server(3, 10, 8)) is not None
    assert consumer_arguments(app, options) == {}


def test_rows_r04_r05_from_4_3_on_a_quorum_queue_is_asked_and_only_others_are_warned_of() -> None:
    queues = [Queue("default"), Queue("old", type=QueueType.CLASSIC)]
    app, options = app_with(HOUR, task_queues=queues)

    assert consumer_arguments(app, options) == {"default": {"x-consumer-timeout": 3_660_000}}
    note = timeout_note(app, options, server(4, 3))
    assert note is not None
    assert "queue old)" in note
    assert timeout_note(*app_with(HOUR), server(4, 3)) is None


def test_late_tasks_without_any_limit_are_named_apart() -> None:
    assert unlimited_tasks(*app_with(None)) == ("long",)
    assert unlimited_tasks(*app_with(None, task_soft_time_limit=5)) == ()
    assert unlimited_tasks(*app_with(None, task_acks_late=False)) == ()
