"""Tasks and the exchanges of AMQP: each type takes them where it takes any message, and a call to a queue reaches that queue."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, TableValue
from amqp_tasks.app import App
from amqp_tasks.transport import TopologyMode
from support.raw import RawClient
from support.vhosts import Vhost

MakeApp = Callable[..., App]

# kombu has no types.
kombu: Any = import_module("kombu")


def bound(queue: str, key: str = "", **arguments: TableValue) -> Binding:
    return Binding("weather", queue, routing_key=key, arguments=arguments)


DIRECT = (ExchangeType.DIRECT, bound("a", "a"), bound("b", "b"))
TOPIC = (ExchangeType.TOPIC, bound("a", "rain.#"), bound("b", "sun.#"))
FANOUT = (ExchangeType.FANOUT, bound("a"), bound("b"))
HEADERS = (ExchangeType.HEADERS, bound("a", kind="rain"), bound("b", kind="sun"))


def make_weather(make_app: MakeApp, exchange_type: ExchangeType, *bindings: Binding) -> App:
    """An app with the queues `a` and `b` bound to the exchange `weather`."""
    parts = [Exchange("weather", exchange_type), Queue("a"), Queue("b"), *bindings]
    return make_app(task_queues=parts, result_backend=None)


def reached(raw_client: RawClient) -> list[str]:
    """Which queues hold how many messages, by name."""
    return [name for name in ("a", "b") for _ in raw_client.drain(name)]


@pytest.mark.parametrize(
    ("weather", "call", "queues"),
    [
        (DIRECT, {"routing_key": "a"}, ["a"]),
        (TOPIC, {"routing_key": "rain.local"}, ["a"]),
        (FANOUT, {"routing_key": "any"}, ["a", "b"]),
        (FANOUT, {}, ["a", "b"]),
        (HEADERS, {"headers": {"kind": "rain"}}, ["a"]),
    ],
)
def test_a_task_goes_by_every_type_of_exchange(
    make_app: MakeApp, raw_client: RawClient, weather: Any, call: dict[str, Any], queues: list[str]
) -> None:
    app = make_weather(make_app, *weather)

    app.send_task("report", exchange="weather", **call)

    assert reached(raw_client) == queues


@pytest.mark.parametrize(
    ("weather", "queues"), [(DIRECT, ["a"]), (TOPIC, ["a"]), (FANOUT, ["a", "b"]), (HEADERS, ["a"])]
)
def test_a_call_to_a_queue_reaches_it_whatever_exchange_it_is_bound_to(
    make_app: MakeApp, raw_client: RawClient, weather: Any, queues: list[str]
) -> None:
    app = make_weather(make_app, *weather)
    app.transport.ensure_topology(app.topology, mode=TopologyMode.DECLARE)

    app.send_task("report", queue="a")

    # A fanout exchange is there to reach all: a queue of its stands for them.
    assert reached(raw_client) == queues


def test_queues_of_kombu_are_declared_as_they_say(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    mails = kombu.Queue(
        "mails",
        kombu.Exchange("office", type="topic"),
        routing_key="mail.#",
        queue_arguments={"x-queue-type": "classic", "x-max-length": 3, "x-overflow": "reject-publish"},
        max_priority=5,
    )
    app = make_app(task_queues=[mails, kombu.Queue("plain")], result_backend=None)

    app.send_task("t", queue="mails")
    app.send_task("t", exchange="office", routing_key="mail.urgent", priority=4)
    app.send_task("t", queue="plain")

    assert [raw_client.get("mails").properties.priority for _ in range(2)] == [4, 0]
    assert raw_client.get("plain").headers["task"] == "t"
    arguments = vhost.queue("mails")["arguments"]
    wanted = {
        "x-queue-type": "classic",
        "x-max-length": 3,
        "x-overflow": "reject-publish",
        "x-max-priority": 5,
    }
    assert wanted.items() <= arguments.items()
