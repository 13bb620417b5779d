"""The index of delayed tasks: what waits is listed, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, Task
from amqp_tasks.app._entries import read_stream
from amqp_tasks.app._indexing import IndexingTransport
from amqp_tasks.errors import BulkSendError, ConfigurationError, NotSent, Snooze, UnroutableError
from amqp_tasks.message import DELAYED_NAME, JournalEntry, OutgoingMessage, Properties
from support import eventually

AnyTask = Task[..., Any]
FAR = 600


@pytest.fixture
def app() -> Iterator[App]:
    with App("listing", broker=f"memory://{uuid4().hex}/", task_delayed_index=True) as made:
        yield made


@contextmanager
def working(app: App) -> Iterator[None]:
    worker = app.Worker(pool="threads", concurrency=1)
    thread = threading.Thread(target=worker.start, name="worker-under-test")
    thread.start()
    try:
        assert worker.ready.wait(10)
        yield
    finally:
        assert worker.stop(timeout=5)
        thread.join(10)


def ids(app: App, **options: Any) -> list[str]:
    return [each.id for each in app.delayed.find(**options)]


def test_a_task_that_waits_is_listed_by_its_id_and_one_that_is_due_is_not(app: App) -> None:
    now = datetime.now(UTC)
    app.send_task("at.once", task_id="now")
    app.send_task("soon", task_id="soon", countdown=1.1)
    app.send_task("far", task_id="far", countdown=FAR)

    (far,) = app.delayed.find(["far", "now", "unknown"])
    assert (far.id, far.task, far.exchange, far.routing_key, far.retries) == ("far", "far", "", "default", 0)
    assert timedelta(seconds=FAR - 1) < far.due - now < timedelta(seconds=FAR + 10)
    assert [each.id for each in app.delayed.find("far")] == ["far"]
    assert app.delayed.find([]) == []
    assert ids(app, task="s*") in (["soon"], [])
    eventually(lambda: ids(app) == ["far"])


def test_those_sent_in_bulk_are_listed_in_the_order_in_which_they_are_due(app: App) -> None:
    app.send_many(
        ("bulk", (), dict[str, Any](), {"task_id": f"{i}", "countdown": FAR + 500 - i}) for i in range(450)
    )

    assert ids(app) == [f"{i}" for i in reversed(range(450))]
    assert ids(app, limit=2) == ["449", "448"]
    assert ids(app, queue="other") == []


def test_a_task_for_the_end_of_time_is_listed(app: App) -> None:
    app.send_task("far", task_id="max", eta=datetime.max.replace(tzinfo=UTC))

    (far,) = app.delayed.find(["max"])
    assert far.due.year == 9999


def test_a_revoked_task_is_marked_until_it_is_due(app: App) -> None:
    for task_id in ("a", "b", "c"):
        app.send_task("far", task_id=task_id, countdown=FAR)
    app.control.revoke(["a", "b"])
    app.control.unrevoke("b")

    assert {each.id: each.is_revoked for each in app.delayed.find()} == {"a": True, "b": False, "c": False}


def test_a_task_that_is_revoked_by_a_stamp_is_listed_without_a_mark(app: App) -> None:
    """As the index has no stamps; `docs/explanation/delay.md` says so."""
    app.send_task("far", task_id="stamped", countdown=FAR, stamps={"batch": "b-1"})
    app.control.revoke_by_stamped_headers({"batch": "b-1"})

    assert {each.id: each.is_revoked for each in app.delayed.find()} == {"stamped": False}


def test_a_task_that_was_refused_is_not_listed(app: App) -> None:
    for call in (_one_to_nowhere, _many_to_nowhere):
        with pytest.raises((UnroutableError, BulkSendError)):
            call(app)
    app.send_task("far", task_id="sent", countdown=FAR)

    assert ids(app) == ["sent"]


def _one_to_nowhere(app: App) -> None:
    app.send_task("far", exchange="amq.topic", routing_key="nobody", countdown=FAR)


def _many_to_nowhere(app: App) -> None:
    nowhere = {"exchange": "amq.topic", "routing_key": "nobody", "countdown": FAR}
    app.send_many([("far", (), dict[str, Any](), nowhere)])


def test_what_waits_for_its_next_attempt_is_listed_with_the_number_of_its_retries(app: App) -> None:
    @app.task(bind=True)
    def again(self: AnyTask) -> None:
        raise self.retry(countdown=FAR)

    @app.task
    def later() -> None:
        raise Snooze(FAR)

    with working(app):
        again.apply_async(task_id="retried", countdown=1.0)
        later.apply_async(task_id="snoozed")
        eventually(lambda: len(ids(app, task="*")) == 2 and _retries(app).get("retried") == 1)

    assert _retries(app) == {"retried": 1, "snoozed": 0}


def test_a_bulk_that_notes_a_task_after_its_retry_takes_nothing_from_it(app: App) -> None:
    def calls() -> Iterator[tuple[Any, ...]]:
        yield "bulk", (), {}, {"task_id": "retried", "countdown": FAR}
        app.send_task(
            "bulk", task_id="retried", countdown=2 * FAR
        )  # as a worker does; the bulk is noted at its end

    before = datetime.now(UTC)
    app.send_many(calls())

    (found,) = app.delayed.find("retried")
    assert found.due > before + timedelta(seconds=1.5 * FAR)


@pytest.mark.parametrize("late", [-FAR, 1])
def test_a_note_that_comes_late_does_not_replace_one_with_a_later_time(app: App, late: float) -> None:
    now = datetime.now(UTC).timestamp()
    app.send_task("far", countdown=FAR)
    for due, retries in ((now + FAR, 1), (now + late, 0)):
        _note(app, _entry(f'{{"tasks": [["retried","t",{due},"","",{retries}]]}}'))

    assert _retries(app)["retried"] == 1


def _retries(app: App) -> dict[str, int]:
    return {each.id: each.retries for each in app.delayed.find()}


def test_what_is_no_entry_of_the_index_is_passed_over(app: App) -> None:
    app.send_task("far", task_id="far", countdown=FAR)
    huge = "1" + "0" * 400
    _note(app, b"\xff")
    _note(app, _entry("[]", time=huge))
    for due in ("1e99", "NaN", huge):
        _note(app, _entry(f'{{"tasks": [["a","b",{due},"","",0]]}}'))
    for facts in ("[]", '{"tasks": 1}', '{"tasks": [1]}'):
        _note(app, _entry(facts))

    assert ids(app) == ["far"]


def _entry(facts: str, *, time: str = "1") -> bytes:
    return f'{{"kind":"delayed","id":"x","time":{time},"sender":"s","facts":{facts}}}'.encode()


def _note(app: App, body: bytes) -> None:
    app.transport.publish(
        OutgoingMessage(exchange="", routing_key=DELAYED_NAME, body=body, properties=Properties())
    )


def test_an_entry_that_its_reader_stumbles_over_keeps_no_other_from_being_read(app: App) -> None:
    app.send_task("far", task_id="far", countdown=FAR)
    read: list[str] = []

    def learn(entry: JournalEntry) -> None:
        read.append(entry.kind)
        raise ArithmeticError(entry.kind)

    assert read_stream(app.transport, DELAYED_NAME, learn) == 0
    assert read == ["delayed", "mark"]


def test_a_call_whose_note_cannot_be_stored_is_sent_and_told_once(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.send_task("far", countdown=FAR)
    app.transport.delete_queue(DELAYED_NAME)
    app.conf.update(topology="none")

    with caplog.at_level(logging.WARNING, "amqp_tasks"):
        for _ in range(3):
            app.send_task("far", countdown=FAR)
        app.close()  # waits for what is on its way

    told = [record for record in caplog.records if getattr(record, "action", "") == "delayed_index"]
    assert len(told) == 1
    assert "is not noted in amqp_tasks.delay.index" in told[0].getMessage()


def test_a_call_that_reaches_no_broker_ends_as_without_an_index() -> None:
    with (
        App("nowhere", broker="amqp://127.0.0.1:1//", task_delayed_index=True) as app,
        pytest.raises(NotSent),
    ):
        app.transport.publish(
            OutgoingMessage(
                exchange="",
                routing_key="q",
                body=b"",
                properties=Properties(headers={"id": "a", "task": "t"}),
                delay=FAR,
            ),
            timeout=0.3,
        )


def test_without_the_setting_nothing_is_noted_and_the_remedy_is_told() -> None:
    with App("silent", broker=f"memory://{uuid4().hex}/") as app:
        app.send_task("far", countdown=FAR)

        assert not isinstance(app.transport, IndexingTransport)
        with pytest.raises(ConfigurationError, match="set task_delayed_index=True"):
            app.delayed.find()


def test_the_stream_is_declared_with_the_rest_of_the_topology(app: App) -> None:
    assert app.resources.topologies.with_shared.queue(DELAYED_NAME) is not None
    assert app.topology.queue(DELAYED_NAME) is None
