"""Brokers, virtual hosts and the raw client of the tests, against a real RabbitMQ."""

from __future__ import annotations

from datetime import UTC, datetime

import pika
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    StreamLostError,
)

from support import SECRET, BrokerNode, BrokerUnavailable, PrivateNode, RawClient, TcpProxy, Vhost, eventually
from support.brokers import find_broker, start_node
from support.containers import ContainerNode
from support.node_logs import errors_since
from support.nodes import LocalNode, NodeUnavailable


def test_each_vhost_is_empty_and_gone_afterwards(broker: BrokerNode, vhost: Vhost) -> None:
    assert vhost.queues() == []

    vhost.delete()

    with pytest.raises((AMQPConnectionError, ConnectionClosedByBroker)):
        RawClient(vhost.url)


def test_raw_client_puts_in_and_takes_out_what_it_is_given(vhost: Vhost, raw_client: RawClient) -> None:
    raw_client.declare("q")
    raw_client.publish("q", b"\xff\x00", {"n": 1}, content_type="application/x-foreign", priority=3)

    assert raw_client.depth("q") == 1
    message = raw_client.get("q")

    assert (message.body, message.headers, message.routing_key) == (b"\xff\x00", {"n": 1}, "q")
    assert (message.properties.content_type, message.properties.priority) == ("application/x-foreign", 3)
    assert raw_client.depth("q") == 0
    assert raw_client.depth("missing") == -1
    assert vhost.queue("q")["name"] == "q"


def test_a_limited_user_may_only_what_was_granted(vhost: Vhost, raw_client: RawClient) -> None:
    raw_client.declare("q")
    url = vhost.limited_url(read="^q$")

    assert SECRET in url
    with RawClient(url) as limited:
        assert limited.get_nowait("q") is None
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            limited.declare("other")


def test_a_user_without_permission_is_refused(vhost: Vhost) -> None:
    with pytest.raises((ProbableAccessDeniedError, AMQPConnectionError, ConnectionClosedByBroker)):
        RawClient(vhost.limited_url(permitted=False))


def test_connections_can_be_closed_by_the_broker(vhost: Vhost, raw_client: RawClient) -> None:
    closed = vhost.close_connections()

    assert closed == 1
    with pytest.raises((ConnectionClosedByBroker, StreamLostError)):
        raw_client.depth("q")


def test_a_proxy_stands_between_client_and_broker(vhost: Vhost, proxy: TcpProxy) -> None:
    with RawClient(proxy.url_for()) as client:
        client.declare("q")
        client.publish("q", b"x")

        assert client.depth("q") == 1
        assert proxy.accepted == 1
        assert proxy.bytes_to_broker > 0


def test_a_missing_broker_fails_and_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: object, *_: object) -> None:
        raise NodeUnavailable("not on this machine")

    monkeypatch.delenv("AMQP_TASKS_TEST_BROKER_URL", raising=False)
    monkeypatch.setattr(ContainerNode, "__init__", none)
    monkeypatch.setattr(LocalNode, "__init__", none)

    with pytest.raises(BrokerUnavailable, match="apt-get install rabbitmq-server") as caught:
        find_broker()

    assert "not on this machine" in str(caught.value)


def test_a_given_broker_without_management_says_which_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AMQP_TASKS_TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:1//")
    monkeypatch.setenv("AMQP_TASKS_TEST_MANAGEMENT_URL", "http://guest:guest@127.0.0.1:1")

    with pytest.raises(BrokerUnavailable, match="AMQP_TASKS_TEST_MANAGEMENT_URL"):
        find_broker()


def test_a_kill_loses_nothing_that_was_confirmed(private_node: PrivateNode) -> None:
    with RawClient(private_node.url) as client:
        client.declare("q", {"x-queue-type": "quorum"})
        client.publish("q", b"x")

    private_node.kill()
    private_node.start()

    with RawClient(private_node.url) as client:
        assert client.get("q", within=15).body == b"x"


def test_a_paused_node_is_silent_until_it_resumes(private_node: PrivateNode) -> None:
    private_node.pause()
    parameters = pika.URLParameters(private_node.url)
    parameters.socket_timeout = parameters.stack_timeout = 0.5
    with pytest.raises((AMQPConnectionError, AMQPConnectorException)):
        pika.BlockingConnection(parameters)

    private_node.resume()

    with RawClient(private_node.url) as client:
        assert client.depth("missing") == -1


def test_the_next_test_gets_a_healthy_node_whatever_happened(private_node: PrivateNode) -> None:
    private_node.raise_memory_alarm()
    private_node.pause()

    private_node.node.heal()

    with RawClient(private_node.url) as client:
        client.declare("q")
        client.publish("q", b"x")
        assert client.depth("q") == 1


def test_what_a_node_logs_as_an_error_is_found_for_the_report(private_node: PrivateNode) -> None:
    began = datetime.now(UTC)

    with RawClient(private_node.url) as client:
        client.depth("never-declared")

    def check() -> None:
        assert any("never-declared" in line for line in errors_since(private_node.node.log(), began))

    eventually(check)
    assert errors_since(private_node.node.log(), datetime.now(UTC)) == []


def test_both_kinds_of_node_start_and_are_gone_after_removal() -> None:
    node = start_node(prefer="installed")
    with RawClient(node.url) as client:
        client.declare("q")
    assert node.management.version() >= (3, 8)

    node.remove()

    assert not node.is_running()
    with pytest.raises(OSError):
        node.management.version()
