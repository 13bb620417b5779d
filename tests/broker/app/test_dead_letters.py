"""Dead letters on RabbitMQ: looking loses none and keeps their order, on every version; requeueing keeps everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.app import DeadLetterFilter
from amqp_tasks.errors import TopologyMismatch
from amqp_tasks.transport import TopologyMode
from support import RawClient, TcpProxy, eventually
from support.raw import RawMessage

LOOKS = 50


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    """An app whose queue `mail` is there."""
    made = make_app(task_queues=["mail"])
    made.transport.ensure_topology(made.topology, mode=TopologyMode.DECLARE)
    return made


def bury(raw: RawClient, *ids: str) -> None:
    for each in ids:
        raw.publish("mail.dead", each.encode(), {"id": each, "task": "t", "x-error-reason": "failed"})


def ids_in(app: App, limit: int | None = None) -> list[str]:
    return [letter.id for letter in app.dead_letters.find(["mail"], limit=limit)]


def test_looking_fifty_times_loses_none_and_keeps_the_order(app: App, raw_client: RawClient) -> None:
    bury(raw_client, *"abcdefgh")

    for look in range(LOOKS):
        limit = (None, 1, 3)[look % 3]
        assert ids_in(app, limit) == list("abcdefgh")[:limit]

    assert [message.body for message in raw_client.drain("mail.dead")] == [bytes([c]) for c in b"abcdefgh"]


@pytest.mark.parametrize("sizes", [[150_000], [8_000] * 20], ids=["one big", "many unwanted"])
def test_what_is_long_on_its_way_is_waited_for(
    app: App, make_app: Callable[..., App], raw_client: RawClient, proxy: TcpProxy, sizes: list[int]
) -> None:
    del app
    for number, size in enumerate(sizes, start=1):
        raw_client.publish("mail.dead", b"x" * size, {"id": str(number), "task": "t"})
    eventually(lambda: raw_client.depth("mail.dead") == len(sizes))
    far = make_app(broker=proxy.url_for(), task_queues=["mail"])
    far.transport.open(timeout=10)
    proxy.throttle(50_000)

    found = far.dead_letters.find(["mail"], DeadLetterFilter(ids=(str(len(sizes)),)), bodies=True)

    assert [(letter.id, len(letter.body or b"")) for letter in found] == [(str(len(sizes)), sizes[-1])]
    assert raw_client.depth("mail.dead") == len(sizes)


def test_what_arrives_between_looks_comes_after_what_was_looked_at(app: App, raw_client: RawClient) -> None:
    bury(raw_client, "a", "b")
    assert ids_in(app) == ["a", "b"]
    bury(raw_client, "c")

    app.dead_letters.purge(["mail"], DeadLetterFilter(ids=("a",)))

    assert ids_in(app) == ["b", "c"]


def test_a_queue_that_was_declared_without_our_limit_is_not_looked_at(
    make_app: Callable[..., App], raw_client: RawClient
) -> None:
    raw_client.declare("old.dead", {"x-queue-type": "quorum"})
    raw_client.publish("old.dead", b"kept", {"id": "a"})

    with pytest.raises(TopologyMismatch, match="x-delivery-limit"):
        make_app().dead_letters.find(["old"])

    assert raw_client.get("old.dead").redelivered is False


def test_requeue_keeps_everything_but_what_tells_of_its_death(app: App, raw_client: RawClient) -> None:
    """Row B032."""
    own: dict[str, Any] = {
        "id": "a",
        "task": "t",
        "retries": 3,
        "expires": None,
        "tenant": {"k": [1, "two", b"\xff"]},
    }
    errors = {"x-error-reason": "failed", "x-error-traceback": "…", "x-error-attempts": 4}
    given: dict[str, Any] = {
        "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "c", "priority": 5,
        "reply_to": "somewhere", "message_id": "m", "timestamp": 5, "type": "ty", "app_id": "me",
    }  # fmt: skip
    raw_client.publish("mail.dead", b"\x00\xff body", own | errors, **given)

    done = app.dead_letters.requeue(["mail"])

    assert (done.count, done.failures) == (1, ())
    message = raw_client.get("mail")
    assert message.body == b"\x00\xff body"
    assert _headers(message) == own
    assert {name: getattr(message.properties, name) for name in given} == given
    assert raw_client.depth("mail.dead") == 0


def test_a_big_requeue_puts_all_back_in_order(app: App, raw_client: RawClient) -> None:
    ids = [f"{number}" for number in range(700)]
    bury(raw_client, *ids)

    done = app.dead_letters.requeue(["mail"], DeadLetterFilter(ids=ids[:650]))

    assert done.count == 650
    assert [message.body.decode() for message in raw_client.drain("mail")] == ids[:650]
    assert ids_in(app) == ids[650:]


@pytest.mark.parametrize(
    ("reason", "policy"), [("delivery-limit", {}), ("expired", {"expiration": "1"}), ("rejected", {})]
)
def test_what_the_broker_dead_letters_has_its_reason_and_comes_back(
    make_app: Callable[..., App], raw_client: RawClient, reason: str, policy: dict[str, str]
) -> None:
    """Rows B031, B033, R01."""
    app = make_app(task_queues=["mail"], task_delivery_limit=1)
    app.transport.ensure_topology(app.topology, mode=TopologyMode.DECLARE)
    raw_client.publish("mail", b"body", {"id": "a", "task": "t"}, **policy)
    if reason == "delivery-limit":
        _return_until_gone(raw_client)
    elif reason == "rejected":
        raw_client.channel.basic_reject(_tag(raw_client), requeue=False)
    eventually(lambda: raw_client.depth("mail.dead") == 1, within=10)

    (letter,) = app.dead_letters.find(["mail"])
    assert (letter.id, letter.reason, letter.queue_name, letter.worker) == ("a", reason, "mail", None)
    assert letter.detail
    assert letter.time is not None
    assert app.dead_letters.requeue(["mail"]).count == 1

    message = raw_client.get("mail")
    assert (message.body, _headers(message)) == (b"body", {"id": "a", "task": "t"})


def _headers(message: RawMessage) -> dict[str, Any]:
    """Without the counts of requeues and, on 3.10, of deliveries, which a first one has there, too."""
    assert message.headers.get("x-delivery-count", 0) == 0
    assert message.headers["x-amqp-tasks-snoozes"] == 1
    others = {"x-delivery-count", "x-amqp-tasks-snoozes"}
    return {name: value for name, value in message.headers.items() if name not in others}


def _tag(raw: RawClient) -> int:
    """The delivery tag of the next message of `mail`; 0 when there is none."""
    method, _, _ = raw.channel.basic_get("mail")
    return method.delivery_tag or 0 if method is not None else 0


def _return_until_gone(raw: RawClient) -> None:
    def returned() -> None:
        tag = _tag(raw)
        if tag:
            raw.channel.basic_nack(tag, requeue=True)
        assert raw.depth("mail.dead") == 1

    eventually(returned, within=10)
