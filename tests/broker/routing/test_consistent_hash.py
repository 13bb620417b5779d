"""`x-consistent-hash` exchanges, on a node whose plugin the test switches on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, QueueType
from amqp_tasks import App
from amqp_tasks.errors import BrokerOperationError
from support import Node, PrivateNode, RawClient

PLUGIN = "rabbitmq_consistent_hash_exchange"
USERS, ROUNDS = 40, 3
QUEUES = [Queue(f"shard-{n}", type=QueueType.CLASSIC, single_active_consumer=True) for n in range(3)]
BINDINGS = [Binding("by-user", queue.name, routing_key="1") for queue in QUEUES]


@pytest.fixture
def app(private_node: PrivateNode) -> Iterator[App]:
    declared = [Exchange("by-user", ExchangeType.CONSISTENT_HASH), *QUEUES, *BINDINGS]
    made = App("proj", broker=private_node.url, task_queues=declared, result_backend=None)
    yield made
    made.close()


# Once for the module: on a busy machine the tool takes half a minute for each call.
@pytest.fixture(scope="module")
def _hashing_node(_breakable_node: Node) -> Iterator[None]:
    _breakable_node.ctl("enable", PLUGIN, tool="rabbitmq-plugins")
    yield
    _breakable_node.ctl("disable", PLUGIN, tool="rabbitmq-plugins")


@pytest.fixture
def _hashing(_hashing_node: None, private_node: PrivateNode) -> Iterator[None]:
    yield
    # An exchange must not outlive its type.
    with RawClient(private_node.url) as client:
        client.channel.exchange_delete("by-user")


# First: the plugin stays on from the next test on.
def test_without_the_plugin_the_call_names_it_and_other_calls_go_on(app: App) -> None:
    app.send_task("t")

    with pytest.raises(BrokerOperationError, match=f"rabbitmq-plugins enable {PLUGIN}"):
        app.send_task("t", exchange="by-user", routing_key="user-1")

    app.send_task("t")
    assert app.transport.statistics().connects <= 2


@pytest.mark.usefixtures("_hashing")
def test_what_one_user_sends_stays_in_order_in_one_queue(app: App, private_node: PrivateNode) -> None:
    app.send_many(
        ("t", (user, turn), {}, {"exchange": "by-user", "routing_key": f"user-{user}"})
        for turn in range(ROUNDS)
        for user in range(USERS)
    )

    went: dict[str, list[tuple[str, str]]] = {}
    with RawClient(private_node.url) as client:
        for queue in QUEUES:
            for _ in range(client.depth(queue.name)):
                message = client.get(queue.name)
                went.setdefault(message.routing_key, []).append((queue.name, message.headers["argsrepr"]))
    for user in range(USERS):
        found = went[f"user-{user}"]
        assert len({queue_name for queue_name, _ in found}) == 1
        assert [args for _, args in found] == [f"({user}, {turn})" for turn in range(ROUNDS)]
    assert len({queue_name for found in went.values() for queue_name, _ in found}) > 1


@pytest.mark.usefixtures("_hashing")
def test_a_call_to_one_of_the_queues_is_not_hashed(app: App, private_node: PrivateNode) -> None:
    for turn in range(5):
        for queue in QUEUES:
            app.send_task("t", (turn,), queue=queue.name)

    with RawClient(private_node.url) as client:
        assert [client.depth(queue.name) for queue in QUEUES] == [5, 5, 5]
