"""What a node is told, worked out before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError, UnknownQueue
from amqp_tasks.worker import Worker
from amqp_tasks.worker._options import Asked, node_name, resolve, select_queues
from amqp_tasks.worker.pools import pool_named


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "web1.example.org")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (None, "worker@web1.example.org"),
        ("mail", "mail@web1.example.org"),
        ("mail@%n", "mail@web1"),
        ("%n-%d@%h", "web1-example.org@web1.example.org"),
        ("100%%@x", "100%@x"),
        ("%%h@x", "%h@x"),
        ("%x@%n", "%x@web1"),
    ],
)
def test_node_names(pattern: str | None, name: str) -> None:
    assert node_name(pattern) == name


def test_a_node_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"name of a worker is empty.*leave it out for worker@%h"):
        node_name("")


def test_dead_letter_queues_are_not_consumed() -> None:
    app = App("options", task_queues={"a": {}, "b": {}})

    assert set(select_queues(app.topology, queues=None, exclude=("b",))) == {"a", "default"}


@pytest.mark.parametrize("creates", [True, False])
@pytest.mark.parametrize(
    ("queues", "task_queue"),
    [(["default.dead"], "default"), (["default", "mail.dead"], "mail"), (["default.dead.dead"], "default.dead")],
)  # fmt: skip
def test_dead_letters_are_not_run_as_they_are(creates: bool, queues: list[str], task_queue: str) -> None:
    app = App("options", task_queues=["mail"], task_create_missing_queues=creates)
    app.finalize()

    with pytest.raises(ConfigurationError, match=f"amqp-tasks dlq requeue -Q {task_queue}"):
        resolve(app, Asked(queues=queues), default_pool="prefork")


def test_a_queue_that_a_call_may_have_made_has_dead_letters_too() -> None:
    app = App("options")

    with pytest.raises(ConfigurationError, match=r"holds the dead letters of 'made'.*add it to task_queues"):
        select_queues(app.topology, queues=["made.dead"], exclude=())
    with pytest.raises(ConfigurationError, match="holds the dead letters of 'made'"):
        select_queues(app.topology, queues=["made", "made.dead"], exclude=())


def test_a_task_queue_may_be_called_dead() -> None:
    app = App("options", task_queues=["walking.dead"])

    assert "walking.dead" in select_queues(app.topology, queues=None, exclude=())
    assert select_queues(app.topology, queues=["walking.dead"], exclude=()) == ("walking.dead",)


def test_excluding_everything_is_refused() -> None:
    app = App("options")

    with pytest.raises(ConfigurationError, match="no queue is left"):
        select_queues(app.topology, queues=None, exclude=("default",))
    with pytest.raises(ConfigurationError, match="cannot exclude queue 'nope'"):
        select_queues(app.topology, queues=None, exclude=("nope",))


def test_arguments_win_over_settings() -> None:
    app = App("options", worker_concurrency=3, worker_max_tasks_per_child=5)
    app.finalize()

    plain = resolve(app, Asked(), default_pool="prefork")
    asked = resolve(app, Asked(concurrency=2, pool="threads", max_tasks_per_child=7), default_pool="prefork")

    assert (plain.concurrency, plain.pool.name, plain.max_tasks) == (3, "prefork", 5)
    assert (plain.layout.processes, plain.layout.slots) == (3, 1)
    assert (asked.concurrency, asked.pool.name, asked.max_tasks) == (2, "threads", 7)
    assert (asked.layout.processes, asked.layout.slots) == (1, 2)


def test_an_unknown_queue_is_refused_where_creation_is_off() -> None:
    app = App("options", task_create_missing_queues=False)
    app.finalize()

    with pytest.raises(UnknownQueue, match="nope"):
        resolve(app, Asked(queues=("nope",)), default_pool="prefork")


def test_a_pool_that_cannot_recycle_refuses_to_be_asked() -> None:
    """Row U066."""
    app = App("options")
    app.finalize()

    with pytest.raises(ConfigurationError, match=r"worker_max_memory_per_child.*'solo' cannot"):
        resolve(app, Asked(pool="solo", max_memory_per_child=1000), default_pool="prefork")


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_cannot_end_a_task_refuses_a_hard_limit(pool: str) -> None:
    """Row U066."""
    app = App("options", task_time_limit=60)
    app.finalize()

    with pytest.raises(
        ConfigurationError, match=f"task_time_limit needs a pool.*{pool!r} cannot: use.*prefork"
    ):
        resolve(app, Asked(pool=pool), default_pool="prefork")


def test_limits_of_arguments_win_over_settings() -> None:
    app = App("options", task_time_limit=60, task_soft_time_limit=50)
    app.finalize()

    plain = resolve(app, Asked(), default_pool="prefork")
    asked = resolve(app, Asked(time_limit=30, soft_time_limit=20), default_pool="prefork")

    assert (plain.time_limit, plain.soft_time_limit) == (60, 50)
    assert (asked.time_limit, asked.soft_time_limit) == (30, 20)
    with pytest.raises(
        ConfigurationError, match=r"soft time limit \(50 s\) must be below the hard one \(30 s\)"
    ):
        resolve(app, Asked(time_limit=30), default_pool="prefork")


def test_an_unknown_pool_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="prefork, threads, solo"):
        pool_named("green")


@pytest.mark.parametrize("queues", ["hipri,lopri", "hipri, lopri", ["hipri", "lopri"], ("hipri", "lopri")])
def test_queues_of_a_worker_are_a_list_or_a_text_with_commas(queues: str | Sequence[str]) -> None:
    app = App("options")
    app.finalize()

    worker = Worker(app, queues=queues, exclude_queues="lopri")

    assert resolve(app, worker._asked, default_pool="prefork").queue_names == ("hipri",)


@pytest.mark.parametrize("queues", ["", "hipri,", [""], [5], 5])
def test_a_queue_of_a_worker_that_has_no_name_is_refused(queues: Any) -> None:
    with pytest.raises(ConfigurationError, match="queue"):
        Worker(App("options"), queues=queues)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 0), ("concurrency", "4"), ("concurrency", True), ("prefetch_multiplier", 0),
        ("max_tasks_per_child", -1), ("max_memory_per_child", 0.5), ("time_limit", -1), ("time_limit", "60"),
        ("soft_time_limit", float("nan")), ("hostname", 5),
    ],
)  # fmt: skip
def test_an_argument_that_cannot_be_is_refused_before_the_worker_starts(name: str, value: Any) -> None:
    options: Any = {name: value}

    with pytest.raises(ConfigurationError, match=f"^{name} must be "):
        Worker(App("options"), **options)
