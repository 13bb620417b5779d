"""Whether a user has the rights that its role takes: asked of the broker, each of its own, and without a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue
from amqp_tasks.app import App
from amqp_tasks.app._rights import Need, Role, least_patterns, needs_of
from amqp_tasks.transport import Permission, TopologyMode
from support.raw import RawClient
from support.vhosts import Vhost

MakeApp = Callable[..., App]

QUEUES = ("hipri", "lopri")
WEATHER = (
    Exchange("weather", ExchangeType.TOPIC),
    Queue("hipri"),
    Queue("lopri"),
    Binding("weather", "hipri", routing_key="rain.#"),
)
KINDS = {"behind the default exchange": QUEUES, "behind a topic exchange": WEATHER}
each_role = pytest.mark.parametrize("role", Role)
each_kind = pytest.mark.parametrize("queues", KINDS.values(), ids=KINDS)


def refused_needs(vhost: Vhost, url: str, needs: Sequence[Need], granted: Sequence[Need]) -> list[Need]:
    """What a user who has the least rights for `granted` lacks of `needs`."""
    patterns = least_patterns(granted)
    vhost.permit(
        url,
        configure=patterns[Permission.CONFIGURE],
        write=patterns[Permission.WRITE],
        read=patterns[Permission.READ],
    )
    with App("asking", broker=url) as app:
        refused = app.transport.refused_rights([right for need in needs for right in need.rights])
    return [need for need in needs if not refused.keys().isdisjoint(need.rights)]


def make_topology(app: App) -> None:
    app.transport.ensure_topology(app.resources.topologies.with_shared, mode=TopologyMode.DECLARE)


def state_of(vhost: Vhost, raw_client: RawClient) -> object:
    """What is there, and how many messages lie in each queue."""
    queues = {queue["name"]: raw_client.depth(queue["name"]) for queue in vhost.queues()}
    exchanges = vhost.management.request("GET", "exchanges", vhost.name)
    bindings = vhost.management.bindings(vhost.name)
    ways = sorted((each["source"], each["destination"], each["routing_key"]) for each in bindings)
    return queues, sorted(each["name"] for each in exchanges), ways


@each_role
@each_kind
def test_the_least_rights_are_found_to_suffice(
    make_app: MakeApp, vhost: Vhost, role: Role, queues: Sequence[object]
) -> None:
    app = make_app(task_queues=queues)
    make_topology(app)
    needs = needs_of(app, role, QUEUES)

    assert refused_needs(vhost, vhost.limited_url(), needs, needs) == []


@each_role
@each_kind
def test_what_is_refused_is_the_right_that_is_missing_and_no_other(
    make_app: MakeApp, vhost: Vhost, role: Role, queues: Sequence[object]
) -> None:
    app = make_app(task_queues=queues)
    make_topology(app)
    needs, url = needs_of(app, role, QUEUES), vhost.limited_url()

    found = {
        missing: refused_needs(vhost, url, needs, [need for need in needs if need is not missing])
        for missing in needs
    }

    assert len(needs) > 5
    assert found == {need: [need] for need in needs}


@each_role
def test_rights_can_be_asked_for_before_there_is_anything(
    make_app: MakeApp, vhost: Vhost, role: Role
) -> None:
    needs, url = needs_of(make_app(task_queues=WEATHER), role, QUEUES), vhost.limited_url()

    assert refused_needs(vhost, url, needs, []) == list(needs)
    assert refused_needs(vhost, url, needs, needs) == []


@each_role
def test_asking_leaves_everything_as_it_is(
    make_app: MakeApp, vhost: Vhost, raw_client: RawClient, role: Role
) -> None:
    app = make_app(task_queues=WEATHER)
    make_topology(app)
    app.send_task("any.task", queue="hipri", ignore_result=True)
    app.send_task("any.task", queue="hipri", countdown=500, ignore_result=True)
    before = state_of(vhost, raw_client)

    refused = app.transport.refused_rights(
        [right for need in needs_of(app, role, QUEUES) for right in need.rights]
    )

    assert refused == {}
    assert state_of(vhost, raw_client) == before
    assert not raw_client.get("hipri").redelivered


def test_the_words_of_a_refusal_are_the_brokers(make_app: MakeApp, vhost: Vhost) -> None:
    app = make_app()
    needs = needs_of(app, Role.WORKER, ["hipri"])
    read = next(need for need in needs if (need.permission, need.pattern) == (Permission.READ, "hipri"))
    with App("asking", broker=vhost.limited_url()) as limited:
        (error,) = limited.transport.refused_rights(read.rights).values()

    assert error.reply_code == 403
    assert "access to queue 'hipri'" in error.reply_text
