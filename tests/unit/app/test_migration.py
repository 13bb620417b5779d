"""Migrating queues on the broker inside the process, and what is refused. Row R14."""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest

from amqp_routing import (
    Binding,
    DeadLetterStrategy,
    Exchange,
    Overflow,
    Queue,
    QueueType,
    RoutingError,
    Topology,
)
from amqp_tasks import App
from amqp_tasks.app import MigrationProgress, MigrationStep, _mover
from amqp_tasks.errors import BrokerUnreachable, ConfigurationError, MigrationRefused, UnknownQueue
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport import (
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    QueueStatus,
    TopologyMode,
)
from amqp_tasks.transport.management import Management
from support.apps import MakeApp

DECLARE = TopologyMode.DECLARE


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    url, made = f"memory://{uuid.uuid4().hex}/", list[App]()

    def make(*queues: object, **settings: Any) -> App:
        made.append(App("moving", broker=url, task_queues=list(queues), **settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


def _filled(make_app: MakeApp, *queues: object) -> App:
    """The app before the change: its queue `mail` holds three messages."""
    app = make_app(*queues)
    app.transport.ensure_topology(app.topology, mode=DECLARE)
    for body in (b"a", b"b", b"c"):
        message = OutgoingMessage(
            exchange="", routing_key="mail", body=body, properties=Properties(headers={"id": body.decode()})
        )
        app.transport.publish(message)
    return app


def test_memory_migrates_as_rabbitmq_does_and_tells_each_step(make_app: MakeApp) -> None:
    parts = (Exchange("events"), Binding("events", "mail", routing_key="k"))
    _filled(make_app, *parts, Queue("mail", type=QueueType.CLASSIC))
    app = make_app(*parts, Queue("mail", max_length=100))
    told: list[MigrationProgress] = []
    before = app.migration("mail").plan()

    done = app.migration("mail", quiet=0.05).run(told.append)

    assert (before.next_step, before.messages, before.waiting) == (MigrationStep.MOVE_OUT, 3, None)
    assert len(before.differences) == 3
    assert (done.moved_out, done.moved) == (3, 3)
    assert list(dict.fromkeys(progress.step for progress in told)) == list(MigrationStep)
    assert app.transport.compare_topology(app.topology_for(["mail"])) == ()
    assert app.transport.queue_status("mail.migrating") is None
    app.transport.publish(
        OutgoingMessage(exchange="events", routing_key="k", body=b"", properties=Properties())
    )
    status = app.transport.queue_status("mail")
    assert status is not None
    assert status.messages == 4
    assert app.migration("mail").run().moved == 0


def test_a_queue_with_a_consumer_is_refused(make_app: MakeApp) -> None:
    old = _filled(make_app, Queue("mail", type=QueueType.CLASSIC))
    consuming = threading.Event()
    consumer = old.transport.consume(
        ["mail"],
        ConsumerOptions(prefetch=1),
        on_deliveries=lambda _: None,
        on_event=lambda _: consuming.set(),
    )
    assert consuming.wait(5)

    with pytest.raises(MigrationRefused) as caught:
        make_app(Queue("mail")).migration("mail").run()

    assert caught.value.queue_name == "mail"
    consumer.close(timeout=5)


def test_a_broker_that_is_too_busy_to_count_is_not_believed_that_nothing_is_there(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue would be deleted under its worker, with the message that he holds."""
    old = _filled(make_app, Queue("mail", type=QueueType.CLASSIC))
    held = threading.Event()
    consumer = old.transport.consume(
        ["mail"],
        ConsumerOptions(prefetch=1),
        on_deliveries=lambda _: held.set(),
        on_event=lambda _: None,
    )
    assert held.wait(5)
    app = make_app(Queue("mail"))
    real, asked = app.transport.queue_status, list[str]()

    def too_busy(queue_name: str, **options: Any) -> QueueStatus | None:
        asked.append(queue_name)
        is_busy = queue_name == "mail" and asked.count("mail") < 12
        return QueueStatus(name="mail", messages=0, consumers=0) if is_busy else real(queue_name, **options)

    monkeypatch.setattr(app.transport, "queue_status", too_busy)

    with pytest.raises(MigrationRefused, match="1 consume it"):
        app.migration("mail", quiet=0.05).run()

    consumer.close(timeout=5)
    assert real("mail") is not None


def test_a_broker_that_never_counts_who_consumes_is_given_up(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(make_app, Queue("mail", type=QueueType.CLASSIC))
    app = make_app(Queue("mail"))
    monkeypatch.setattr(_mover, "_STALLED", 0.3)
    real = app.transport.queue_status
    nothing = QueueStatus(name="mail", messages=0, consumers=0)
    monkeypatch.setattr(app.transport, "queue_status", lambda *_, **__: nothing)

    with pytest.raises(BrokerUnreachable, match="does not say who consumes queue 'mail'"):
        app.migration("mail", quiet=0.05).run()

    monkeypatch.setattr(app.transport, "queue_status", real)
    assert app.migration("mail", quiet=0.05).run().moved == 3


def test_a_consumer_that_has_failed_is_not_waited_for(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = _filled(make_app, Queue("mail"), Queue("aside"))
    monkeypatch.setattr(_mover, "_STALLED", 0.1)
    error = ConfigurationError("its right to read is gone")
    silent = create_autospec(Consumer, instance=True)  # as one that has failed
    monkeypatch.setattr(app.transport, "consume", lambda *_args, **_kwargs: silent)

    with _mover.Mover(app.transport, "mail", "aside", queue_name="mail") as mover:
        mover._on_event(ConsumerEvent(state=ConsumerState.FAILED, epoch=1, error=error))
        with pytest.raises(ConfigurationError, match="its right to read"):
            mover.finish()


def test_messages_that_are_not_confirmed_on_their_way_back_are_not_called_migrated(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(make_app, Queue("mail", type=QueueType.CLASSIC))
    app = make_app(Queue("mail"))
    monkeypatch.setattr(_mover, "_CLOSE_TIMEOUT", 0.1)
    publish = app.transport.publish_nowait

    def unconfirmed(message: OutgoingMessage, on_outcome: Callable[[Any], None]) -> None:
        if message.routing_key != "mail":
            publish(message, on_outcome)

    monkeypatch.setattr(app.transport, "publish_nowait", unconfirmed)

    with pytest.raises(MigrationRefused, match="not all messages of 'mail"):
        app.migration("mail", quiet=0.05, patience=0.2).run()

    monkeypatch.setattr(app.transport, "publish_nowait", publish)
    plan = app.migration("mail").plan()
    assert (plan.next_step, plan.waiting) == (MigrationStep.MOVE_BACK, 3)
    assert app.migration("mail", quiet=0.05).run().moved == 3


_STRICT = Queue(
    "mail",
    dead_letter_exchange="",
    dead_letter_routing_key="mail.dead",
    dead_letter_strategy=DeadLetterStrategy.AT_LEAST_ONCE,
    overflow=Overflow.REJECT_PUBLISH,
)


def test_what_cannot_be_migrated_says_why(make_app: MakeApp) -> None:
    app = make_app(Queue("mail"), Queue("log", type=QueueType.STREAM), task_create_missing_queues=False)

    with pytest.raises(UnknownQueue, match="did you mean 'mail'"):
        app.migration("mial")
    with pytest.raises(UnknownQueue, match="topology apply"):
        app.migration("mail").plan()
    with pytest.raises(ConfigurationError, match="to which nothing can be migrated"):
        app.migration("log")
    with pytest.raises(RoutingError, match="classic queue takes no"):
        make_app(_STRICT).migration("mail", to_type="classic")


@pytest.mark.parametrize(
    ("queue", "to_type", "expected"),
    [
        (Queue("mail"), "classic", {"max_priority": 7, "delivery_limit": None}),
        (Queue("mail", type=QueueType.CLASSIC), "quorum", {"max_priority": None, "delivery_limit": 50}),
        (Queue("mail", delivery_limit=3), "quorum", {"max_priority": None, "delivery_limit": 3}),
    ],
)
def test_another_type_brings_the_standard_arguments_of_that_type(
    make_app: MakeApp, queue: Queue, to_type: str, expected: dict[str, object]
) -> None:
    app = make_app(
        queue,
        task_queue_max_priority=7,
        task_default_queue_type="classic",
        task_create_missing_queue_type="classic",
    )
    app.transport.ensure_topology(
        Topology(queues=(Queue("mail", type=QueueType.CLASSIC, max_length=1),)), mode=DECLARE
    )

    app.migration("mail", to_type=to_type, quiet=0.05).run()

    found = app.resources.topologies.for_migration("mail", QueueType(to_type))
    assert app.transport.compare_topology(found) == ()
    declared = found.queue("mail")
    assert {name: getattr(declared, name) for name in expected} == expected


@pytest.mark.parametrize("url", ["amqp://localhost", "localhost:15672", "http://"])
def test_a_url_that_is_none_of_a_management_api_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like http://user:password@host:15672"):
        Management(url, vhost="/")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://me:s3cr3t/x@mq:15672", "percent-encode '@' as %40, '/' as %2F"),
        ("http://me:s3cr3t@mq:156720", "port from 1 to 65535"),
        ("http://me:s3cr3t@mq:many", "port from 1 to 65535"),
        ("http://me:s3cr3t@[mq", r"IPv6 address in \[ \]"),
    ],
)
def test_a_wrong_url_of_a_management_api_is_told_without_its_password(url: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        Management(url, vhost="/")

    # Without the first frame, which is this test's own and holds the URL by design.
    told = traceback.TracebackException(caught.type, caught.value, caught.tb.tb_next, capture_locals=True)
    assert "s3cr3t" not in "".join(told.format())


def test_a_management_api_that_does_not_answer_is_named_without_the_password() -> None:
    with pytest.raises(BrokerUnreachable, match=r"management API at http://127\.0\.0\.1:1/api") as caught:
        Management("http://me:s3cr3t@127.0.0.1:1", vhost="/").bindings_of("mail")

    assert "s3cr3t" not in str(caught.value)
