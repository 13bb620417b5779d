"""The queues of an app, and what is said of one that it does not have."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, QueueType
from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError, UnknownQueue


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("hiprio", "hipri, lopri, reports, default", "did you mean 'hipri'?"),
        ("report", "reports, lopri, hipri, default", "did you mean 'reports'?"),
        ("zzz", "reports, lopri, hipri, default", "add it to task_queues, or set task_create_missing_queues=True"),
        ("routed", "reports, lopri, hipri, default", "task_routes name it, but it is not declared: add it to task_queues"),
    ],
)  # fmt: skip
def test_an_unknown_queue_is_answered_with_all_there_are_the_nearest_first(
    name: str, known: str, hint: str
) -> None:
    app = App(
        "proj",
        task_queues=["reports", "lopri", "hipri"],
        task_routes={"mail": "routed"},
        task_create_missing_queues=False,
    )

    with pytest.raises(UnknownQueue) as caught:
        app.topology_for([name])

    assert caught.value.known == tuple(known.split(", "))
    assert str(caught.value).startswith(f"unknown queue {name!r} (known: {known}); {hint}")


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ([5], "task_queues: 5 is no queue; expected a name"),
        ([None], "task_queues: None is no queue; expected a name"),
        ({"mail": 5}, "task_queues['mail']: 5 is neither a mapping of options nor a Queue"),
        ({"mail": {"typ": "classic"}}, "task_queues['mail']: unknown option 'typ', did you mean 'type'?"),
    ],
)
def test_what_is_no_queue_is_named(queues: Any, said: str) -> None:
    app = App("proj", task_queues=queues)

    with pytest.raises(ConfigurationError) as caught:
        _ = app.topology

    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("has_own", [True, False])
def test_a_queue_may_dead_letter_to_another_task_queue(has_own: bool) -> None:
    """Row B031: by its name, or by an exchange; what those need comes along."""
    app = App(
        "proj",
        task_dead_letter_queues=has_own,
        task_queues=[
            Queue("fast", dead_letter_exchange="", dead_letter_routing_key="slow"),
            Queue("slow", type=QueueType.CLASSIC, dead_letter_exchange="graves"),
            Exchange("graves"),
            Queue("grave", type=QueueType.CLASSIC),
            Binding("graves", "grave", routing_key="slow"),
        ],
    )

    topology = app.topology_for(["fast"])

    expected = {"fast", "slow", "grave"} | ({"fast.dead", "grave.dead"} if has_own else set[str]())
    assert set(topology.queue_names) == expected
    assert [each.name for each in topology.exchanges] == ["graves"]
    assert [each.destination for each in topology.bindings] == ["grave"]


def test_what_an_exchange_cannot_route_has_its_way_declared_with_it() -> None:
    app = App(
        "proj",
        task_dead_letter_queues=False,
        task_queues=[
            Exchange("main", alternate_exchange="unroutable"),
            Exchange("unroutable", alternate_exchange="last"),
            Exchange("last", type=ExchangeType.FANOUT),
            *[Queue("main"), Queue("lost"), Queue("other")],
            *[Binding("main", "main", routing_key="main"), Binding("last", "lost")],
        ],
    )

    topology = app.topology_for(["main"])

    assert [each.name for each in topology.exchanges] == ["main", "unroutable", "last"]
    assert topology.queue_names == ("main", "lost")
    assert [each.destination for each in topology.bindings] == ["main", "lost"]


@pytest.mark.parametrize("has_own", [True, False])
def test_a_queue_of_kombu_may_need_what_another_declares(has_own: bool) -> None:
    kombu: Any = import_module("kombu")
    graves = Exchange("graves", type=ExchangeType.FANOUT)
    queues = [
        kombu.Queue("main", kombu.Exchange("main"), "main", queue_arguments={"x-dead-letter-exchange": "graves"}),
        *([graves] if has_own else [kombu.Queue("grave", kombu.Exchange("graves", type="fanout"))]),
    ]  # fmt: skip

    topology = App("proj", task_queues=queues).topology_for(["main"])

    assert topology.exchange("graves") == graves
    assert [each.source for each in topology.bindings] == (["main"] if has_own else ["main", "graves"])


@pytest.mark.parametrize("queue", ["mail.dead", "other.dead"])
def test_a_call_to_a_dead_letter_queue_is_refused_before_anything_is_sent(queue: str) -> None:
    with App("proj", broker="memory://", task_queues=["mail"]) as app:
        task = app.task(queue=queue)(lambda: None)
        for call in (task.delay, lambda: app.send_task("t", queue=queue)):
            with pytest.raises(ConfigurationError, match=f"holds the dead letters of '{queue[:-5]}'"):
                call()


def test_a_route_to_a_dead_letter_queue_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"queue 'mail\.dead' holds the dead letters of 'mail'"):
        _ = App("proj", task_queues=["mail"], task_routes={"t": "mail.dead"}).topology


def test_a_queue_that_the_app_calls_so_is_a_task_queue() -> None:
    with App("proj", broker="memory://", task_queues=["walking.dead"]) as app:
        assert app.send_task("t", queue="walking.dead", ignore_result=True).id
