"""Which rights producers and workers need, by the settings of their app."""

from __future__ import annotations

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue
from amqp_tasks.app import App
from amqp_tasks.app._rights import Role, Use, least_patterns, needs_of
from amqp_tasks.errors import UnknownQueue
from amqp_tasks.transport import Permission

WEATHER = (
    Exchange("weather", ExchangeType.TOPIC),
    Queue("rain"),
    Binding("weather", "rain", routing_key="rain.#"),
)


def patterns(app: App, role: Role, *queue_names: str, used: tuple[Use, ...] = ()) -> dict[str, str]:
    needs = needs_of(app, role, queue_names, without=set(Use) - set(used))
    return {str(name): pattern for name, pattern in least_patterns(needs).items()}


def test_a_producer_without_results_only_writes() -> None:
    app = App("proj", result_backend=None, task_queues=["mail"])

    assert patterns(app, Role.PRODUCER, "mail", used=(Use.RESULTS,)) == {
        "configure": "^$",
        "write": r"^amq\.default$",
        "read": "^$",
    }


def test_an_exchange_needs_its_own_rights_and_those_to_bind_it_again() -> None:
    app = App("proj", task_queues=WEATHER)

    assert patterns(app, Role.PRODUCER, "rain") == {
        "configure": "^$",
        "write": "^(rain|weather)$",
        "read": "^weather$",
    }


def test_a_worker_makes_and_reads_tokens_where_a_task_has_a_limit_for_all_nodes() -> None:
    app = App("proj", task_queues=["mail"])
    before = patterns(app, Role.WORKER, "mail")
    app.task(name="sms", cluster_rate_limit="10/m")(print)

    assert before["configure"] == "^$"
    assert patterns(app, Role.WORKER, "mail") == before | {
        "configure": r"^amqp_tasks\.rate\..*$",
        "read": r"^(amqp_tasks\.journal|amqp_tasks\.rate\..*|mail)$",
    }


def test_bindings_that_are_not_declared_take_no_rights() -> None:
    app = App("proj", task_queues=WEATHER, topology="check")

    assert patterns(app, Role.PRODUCER, "rain") == {"configure": "^$", "write": "^weather$", "read": "^$"}
    assert patterns(app, Role.WORKER, "rain")["read"] == r"^(amqp_tasks\.journal|rain)$"


def test_exchanges_that_routes_and_tasks_name_are_written_to() -> None:
    app = App("proj", task_routes={"a": {"exchange": "sea", "routing_key": "k"}}, task_queues=["mail"])

    @app.task(exchange="air", routing_key="")
    def fly() -> None: ...

    assert patterns(app, Role.PRODUCER, "mail")["write"] == r"^(air|amq\.default|sea)$"


@pytest.mark.parametrize("role", Role)
def test_chords_take_the_rights_for_delays_as_well(role: Role) -> None:
    app = App("proj", task_queues=["mail"])

    delays, chords = (patterns(app, role, "mail", used=(use,)) for use in (Use.DELAYS, Use.CHORDS))

    assert chords["write"] == delays["write"] == r"^(amq\.default|amqp_tasks\.delay\..*|mail)$"
    assert r"amqp_tasks\.join\..*" in chords["configure"]


def test_names_are_taken_literally() -> None:
    app = App("proj", task_queues=["a+b|(c)"])

    needs = needs_of(app, Role.WORKER, ["a+b|(c)"])

    assert r"a\+b\|\(c\)" in {need.pattern for need in needs if need.permission is Permission.READ}


def test_each_permission_is_needed_once_for_each_pattern() -> None:
    needs = needs_of(App("proj", task_queues=WEATHER), Role.WORKER, ["rain"])

    assert len({(need.permission, need.pattern) for need in needs}) == len(needs)


def test_a_queue_that_may_not_be_made_is_refused() -> None:
    app = App("proj", task_create_missing_queues=False)

    with pytest.raises(UnknownQueue):
        needs_of(app, Role.WORKER, ["mail"])


def test_a_broker_in_memory_refuses_nothing() -> None:
    with App("proj", broker="memory://rights") as app:
        needs = needs_of(app, Role.WORKER, ["mail"])

        assert app.transport.refused_rights([right for need in needs for right in need.rights]) == {}
