"""Migrating queues: to other arguments or another type, without a loss. Rows R14 and U046; see `docs/explanation/migrating.md`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, QueueType
from amqp_tasks import App
from amqp_tasks.app import MigrationStep
from amqp_tasks.errors import MigrationRefused, PublishNacked, TopologyMismatch, UnknownQueue
from support import RawClient, TcpProxy, Vhost, eventually
from support.apps import MakeApp

OLD = {"x-queue-type": "classic"}
QUIET = 0.2


def migrate(app: App, name: str = "mail", **options: Any) -> int:
    return app.migration(name, quiet=QUIET, **options).run().moved


def type_of(vhost: Vhost, name: str) -> str:
    return str(vhost.queue(name)["arguments"]["x-queue-type"])


def fill(raw: RawClient, *names: str, queue: str = "mail") -> None:
    for name in names:
        raw.publish(queue, name.encode(), {"id": name, "task": "t"})


def bodies(raw: RawClient, queue: str = "mail") -> list[str]:
    return [message.body.decode() for message in raw.drain(queue)]


@pytest.mark.parametrize("kinds", [("classic", "quorum"), ("quorum", "classic")])
def test_a_queue_gets_another_type_and_keeps_its_messages_in_order(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost, kinds: tuple[str, str]
) -> None:
    before, after = kinds
    raw_client.declare("mail", {"x-queue-type": before})
    names = [f"{number}" for number in range(1200)]
    fill(raw_client, *names)
    app = make_app(task_queues=[Queue("mail", type=QueueType(after))])

    done = app.migration("mail", quiet=QUIET).run()

    assert (done.moved_out, done.moved) == (1200, 1200)
    assert type_of(vhost, "mail") == after
    assert bodies(raw_client) == names
    assert app.transport.compare_topology(app.topology_for(["mail"])) == ()
    assert app.transport.queue_status("mail.migrating") is None
    assert app.migration("mail").plan().next_step is MigrationStep.DONE


def test_the_type_can_be_said_and_wins_over_the_declared_one(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    app = make_app(task_queues=["mail"])
    app.transport.ensure_topology(app.topology, mode=_declare())
    fill(raw_client, "a")

    assert migrate(app, to_type="classic") == 1

    assert type_of(vhost, "mail") == "classic"
    assert bodies(raw_client) == ["a"]


def test_everything_of_a_message_is_kept_but_what_would_do_harm(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    raw_client.declare("mail", OLD)
    headers = {
        "id": "a",
        "task": "t",
        "x-error-reason": "kept",
        "n": {"k": [1, b"\xff", None]},
        "CC": ["mail"],
    }
    given: dict[str, Any] = {
        "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "c", "priority": 3,
        "reply_to": "r", "message_id": "m", "timestamp": 5, "type": "ty", "app_id": "me", "delivery_mode": 2,
    }  # fmt: skip
    raw_client.publish("mail", b"\x00\xff", headers, expiration="3600000", **given)
    app = make_app(task_queues=["mail"])

    migrate(app)

    (message,) = raw_client.drain("mail")
    kept = {name: value for name, value in message.headers.items() if name != "x-delivery-count"}
    assert message.body == b"\x00\xff"
    assert kept == {name: value for name, value in headers.items() if name != "CC"}
    assert {name: getattr(message.properties, name) for name in given} == given
    assert message.properties.expiration is None


def test_a_message_that_takes_longer_than_the_quiet_to_arrive_is_not_left_behind(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    """The broker counts it as gone when it begins to write it."""
    raw_client.declare("mail", OLD)
    fill(raw_client, "a", "b")
    raw_client.publish("mail", b"c" * 600_000, {"id": "c", "task": "t"})
    with TcpProxy(vhost.url) as proxy:
        app = make_app(broker=proxy.url_for(), task_queues=["mail"])
        app.transport.open(timeout=10)
        proxy.throttle(200_000)

        assert migrate(app) == 3

        proxy.resume()
    assert [len(body) for body in bodies(raw_client)] == [1, 1, 600_000]


def test_dead_letters_keep_what_tells_of_their_death(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app(task_queues=["mail"])
    raw_client.declare("mail.dead", {"x-queue-type": "quorum"})
    raw_client.declare(
        "mail",
        {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "mail.dead"},
    )
    raw_client.publish("mail", b"body", {"id": "a", "task": "t"}, expiration="1")
    eventually(lambda: _equal(raw_client.depth("mail.dead"), 1), within=10)

    assert migrate(app, "mail.dead") == 1

    (letter,) = app.dead_letters.find(["mail"])
    assert (letter.id, letter.reason, letter.queue_name) == ("a", "expired", "mail")


def test_bindings_are_kept_those_of_others_only_where_the_management_api_tells_them(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    queues = [
        Exchange("events", ExchangeType.TOPIC),
        Queue("mail"),
        Binding("events", "mail", routing_key="mail.#"),
    ]
    raw_client.declare("mail", OLD)
    raw_client.channel.exchange_declare("events", "topic", durable=True)
    raw_client.channel.exchange_declare("theirs", "headers", durable=True)
    for key, source, arguments in (("mail.#", "events", {}), ("", "theirs", {"x-match": "all", "n": 1})):
        raw_client.channel.queue_bind("mail", source, key, arguments)
    app = make_app(task_queues=queues)

    unaware = app.migration("mail").plan()
    aware = app.migration("mail", quiet=QUIET, management_url=vhost.management.url)

    assert (len(unaware.bindings), unaware.knows_all_bindings) == (1, False)
    assert (len(aware.plan().bindings), aware.plan().knows_all_bindings) == (2, True)
    aware.run()
    found = {(each["source"], each["routing_key"]) for each in vhost.management.bindings(vhost.name)}
    assert {("events", "mail.#"), ("theirs", "")} <= found
    assert not {each for each in found if "migrating" in each[1]}


def test_a_delayed_task_that_becomes_due_during_a_migration_is_in_the_queue_after_it(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    """Row B034: the wheel's binding of its destination is the queue's, and would go with it."""
    app = make_app(task_queues=[Queue("mail", type=QueueType.CLASSIC)])
    for number, countdown in enumerate((1, 2, 3, 4)):
        app.send_task("t", (number,), queue="mail", countdown=countdown, ignore_result=True)
    app.close()

    migrate(make_app(task_queues=["mail"]))

    eventually(lambda: _equal(raw_client.depth("mail"), 4), within=20)
    assert len({message.headers["id"] for message in raw_client.drain("mail")}) == 4


def test_a_queue_that_is_consumed_is_refused_and_nothing_is_changed(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    raw_client.declare("mail", OLD)
    fill(raw_client, "a")
    raw_client.channel.basic_consume("mail", lambda *_: None, auto_ack=False)
    app = make_app(task_queues=["mail"])

    with pytest.raises(MigrationRefused, match="1 consume it: stop the workers of this queue"):
        migrate(app)

    assert type_of(vhost, "mail") == "classic"
    assert app.transport.queue_status("mail.migrating") is None


def test_while_messages_keep_arriving_the_queue_is_not_deleted_and_the_next_run_goes_on(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    raw_client.declare("mail", OLD)
    app = make_app(task_queues=["mail"])
    with sending(vhost, "", "mail") as sent:
        with pytest.raises(MigrationRefused, match="messages keep arriving"):
            app.migration("mail", quiet=5, patience=1).run()
        assert type_of(vhost, "mail") == "classic"

    plan = app.migration("mail").plan()
    assert plan.next_step is MigrationStep.MOVE_OUT
    assert plan.waiting is not None
    migrate(app)

    assert set(bodies(raw_client)) == set(sent)
    assert type_of(vhost, "mail") == "quorum"


def test_messages_to_an_exchange_are_never_unroutable_and_none_is_lost(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    raw_client.declare("mail", OLD)
    raw_client.channel.exchange_declare("events", "fanout", durable=True)
    raw_client.channel.queue_bind("mail", "events", "")
    app = make_app(
        task_queues=[Exchange("events", ExchangeType.FANOUT), Queue("mail"), Binding("events", "mail")]
    )

    with sending(vhost, "events", "") as sent:
        migrate(app)

    found = bodies(raw_client)
    assert set(found) == set(sent)
    # Twice at most, where the bindings overlapped.
    assert all(found.count(each) <= 2 for each in sent)
    assert app.transport.queue_status("mail.migrating") is None


def test_an_old_producer_that_declares_the_old_queue_again_is_noticed(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_client.declare("mail", OLD)
    fill(raw_client, "a")
    app = make_app(task_queues=["mail"])
    delete, deleted = app.transport.delete_queue, list[str]()

    def interfere(name: str, **options: Any) -> None:
        delete(name, **options)
        deleted.append(name)
        if deleted == ["mail"]:
            raw_client.declare("mail", OLD)
            fill(raw_client, "b")

    monkeypatch.setattr(app.transport, "delete_queue", interfere)
    migrate(app)

    assert deleted == ["mail", "mail", "mail.migrating"]
    assert bodies(raw_client) == ["a", "b"]
    assert type_of(vhost, "mail") == "quorum"


def test_a_full_queue_ends_the_way_back_and_what_is_left_comes_back_later(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    raw_client.declare("mail", OLD)
    fill(raw_client, *"abcdef")
    small = Queue("mail", type=QueueType.CLASSIC, max_length=3, overflow="reject-publish")  # type: ignore[arg-type]
    app = make_app(task_queues=[small])

    with pytest.raises(PublishNacked):
        migrate(app)
    found = bodies(raw_client)
    for _ in range(5):
        # What was confirmed and not acknowledged at the refusal comes twice, and may fill the queue once more.
        with suppress(PublishNacked):
            migrate(app)
        found += bodies(raw_client)

    assert set(found) == set("abcdef")
    assert app.transport.queue_status("mail.migrating") is None


def test_what_stands_in_the_way_is_said_before_anything_is_done(
    make_app: MakeApp, raw_client: RawClient, vhost: Vhost
) -> None:
    app = make_app(task_queues=["mail"])
    with pytest.raises(UnknownQueue, match="topology apply"):
        app.migration("mail").plan()
    raw_client.declare("mail", OLD)
    raw_client.declare("mail.dead", OLD)

    with pytest.raises(TopologyMismatch, match=r"mail\.dead"):
        migrate(app)

    assert {queue["name"] for queue in vhost.queues()} == {"mail", "mail.dead"}


@contextmanager
def sending(vhost: Vhost, exchange: str, routing_key: str) -> Iterator[list[str]]:
    """Somebody who sends all the time; yields what was confirmed. A message that is returned fails the test."""
    sent: list[str] = []
    failures: list[Exception] = []
    is_over = threading.Event()

    def send() -> None:
        with RawClient(vhost.url) as raw:
            while not is_over.wait(0.005):
                body = f"sent {len(sent)}"
                try:
                    raw.channel.basic_publish(exchange, routing_key, body.encode(), mandatory=True)
                except Exception as exc:
                    failures.append(exc)
                    return
                sent.append(body)

    thread = threading.Thread(target=send, name="sender")
    thread.start()
    try:
        eventually(lambda: len(sent) > 10, within=10)
        yield sent
    finally:
        is_over.set()
        thread.join(10)
    assert not failures


def _declare() -> Any:
    from amqp_tasks.transport import TopologyMode

    return TopologyMode.DECLARE


def _equal(found: object, expected: object) -> None:
    assert found == expected
