"""Signed messages on `memory://`: what the app's own parts make passes, and what others put there is heeded by nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, Task, Workflow, chain, chord
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import ResultTimeout, TaskRevokedError
from amqp_tasks.message import (
    JOURNAL_NAME,
    SIGNATURE_HEADER,
    JournalEntry,
    OutgoingMessage,
    Properties,
    StepMark,
    TaskTemplate,
    journal_message,
    new_task_id,
    outcome_message,
)
from amqp_tasks.worker import _once
from support.eventually import eventually
from support.inside import running

KEYS = {"k1": "1" * 32}
working = partial(running, pool="threads", concurrency=2)


def app_with(name: str, **settings: Any) -> App:
    """An app on a memory broker of that name, with the tasks of these tests."""
    app = App("proj", broker=f"memory://{name}/", **settings)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task(name="twice", bind=True)
    def twice(self: Task[..., Any], value: int) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=1)
        return [value, sorted(self.request.headers)]

    @app.task(name="calls")
    def calls(x: int) -> int:
        add.apply_async((x, x), ignore_result=True)
        return x

    return app


@pytest.fixture
def name() -> str:
    """Of the broker."""
    return uuid4().hex


@pytest.fixture
def app(name: str) -> Iterator[App]:
    """One with keys."""
    with app_with(name, security_signing_keys=KEYS) as made:
        yield made


@pytest.fixture
def stranger(name: str) -> Iterator[App]:
    """One on the same broker that has no key."""
    with app_with(name) as made:
        yield made


def reasons(app: App) -> list[str]:
    return [letter.reason for letter in app.dead_letters.find()]


def test_calls_retries_delays_chains_and_chords_pass(app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    with working(app):
        assert add.delay(1, 2).get(10) == 3
        assert app.send_many([(add, (n, n)) for n in range(5)]).get(timeout=10) == [0, 2, 4, 6, 8]
        assert app.tasks["twice"].delay(7).get(10) == [7, []]
        assert add.apply_async((1, 1), countdown=1.1).get(10) == 2
        assert chain(add.s(1, 1), add.s(3)).apply_async().get(10) == 5
        assert chord([add.s(n, n) for n in range(3)], total.s())().get(10) == 6
        assert app.tasks["calls"].delay(1).get(10) == 1
    assert reasons(app) == []


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({}, "unsigned"), ({SIGNATURE_HEADER: f"1:k1:{'0' * 64}"}, "bad-signature")],
    ids=["unsigned", "forged"],
)
def test_what_others_send_is_set_aside_and_answers_nobody(
    app: App, stranger: App, headers: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = stranger.tasks["add"].apply_async((1, 2), headers=headers)
    with working(app), caplog.at_level(logging.ERROR):
        eventually(lambda: reasons(app) == [reason], within=10)
        assert app.tasks["add"].delay(2, 2).get(10) == 4
        with pytest.raises(ResultTimeout):
            result.get(0.3)
        assert app.dead_letters.requeue().count == 1
        eventually(lambda: reasons(app) == [reason], within=10)
    assert any(
        result.id in record.getMessage() and reason in record.getMessage() for record in caplog.records
    )
    assert KEYS["k1"] not in caplog.text


def test_what_has_failed_here_runs_again_when_it_is_put_back(app: App) -> None:
    outcomes: SimpleQueue[int] = SimpleQueue()
    fails = [True]

    @app.task(name="fragile", ignore_result=True)
    def fragile() -> None:
        if fails.pop() if fails else False:
            raise ValueError("no")
        outcomes.put(1)

    with working(app):
        fragile.delay()
        eventually(lambda: reasons(app) == ["failed"], within=10)
        app.dead_letters.requeue()
        assert outcomes.get(timeout=10) == 1


def test_unsigned_is_taken_where_that_is_said(name: str, stranger: App) -> None:
    with app_with(name, security_signing_keys=KEYS, security_require_signatures=False) as app, working(app):
        assert stranger.tasks["add"].delay(1, 2).get(10) == 3
        assert stranger.tasks["twice"].delay(1).get(10) == [1, []]
        assert app.tasks["add"].delay(1, 2).get(10) == 3


def test_keys_are_exchanged_while_both_are_in_use(name: str) -> None:
    new = {"k2": "2" * 32}
    with (
        app_with(name, security_signing_keys=KEYS | new) as before,
        app_with(name, security_signing_keys=new | KEYS) as after,
    ):
        with working(before):
            assert after.tasks["add"].delay(1, 2).get(10) == 3
        with working(after):
            assert before.tasks["add"].delay(1, 2).get(10) == 3


def revoking(task_id: str, *, time: float = 2e9) -> JournalEntry:
    return JournalEntry(
        kind="revoke",
        id=new_task_id(),
        time=time,
        sender="gen1@evil",
        facts={"ids": [task_id], "terminate": False, "signal": "SIGTERM"},
    )


def test_only_a_signed_entry_of_the_journal_is_heeded(
    app: App, stranger: App, caplog: pytest.LogCaptureFixture
) -> None:
    # Before it starts: a worker takes tasks when it has read what has been said.
    stranger.control.revoke("a")
    stranger.transport.publish(journal_message(revoking("a")))
    app.control.revoke("b")
    with working(app):
        results = {task_id: app.tasks["add"].apply_async((1, 1), task_id=task_id) for task_id in "ab"}

        assert results["a"].get(10) == 2
        with pytest.raises(TaskRevokedError):
            results["b"].get(10)
    refused = [record for record in caplog.records if getattr(record, "action", "") == "journal_refused"]
    assert [record.levelname for record in refused if "evil" in record.getMessage()] == ["WARNING"]


def test_an_entry_that_somebody_publishes_again_is_heeded_once(app: App, stranger: App) -> None:
    entry = journal_message(revoking("a"))
    app.control.revoke("z")
    app.transport.publish(entry)
    copy = OutgoingMessage(
        exchange="", routing_key=JOURNAL_NAME, body=entry.body, properties=entry.properties
    )
    app.control.unrevoke("a")
    stranger.transport.publish(copy)
    with working(app):
        with pytest.raises(TaskRevokedError):
            app.tasks["add"].apply_async((1, 1), task_id="z").get(10)

        assert app.tasks["add"].apply_async((1, 1), task_id="a").get(10) == 2


def test_a_copy_of_an_entry_that_has_left_the_journal_is_not_heeded(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    pause = replace(revoking(""), kind="pause", facts={"queues": ["default"]})
    oldest = SYSTEM_CLOCK.now().timestamp() - app.settings.worker.journal_max_age
    app.control.revoke("z")
    app.transport.publish(journal_message(replace(pause, time=oldest - 86_500)))
    app.transport.publish(journal_message(replace(revoking("b"), sender="late@host", time=oldest - 80_000)))
    with working(app):
        assert app.tasks["add"].delay(1, 1).get(10) == 2
    refused = [r.getMessage() for r in caplog.records if getattr(r, "action", "") == "journal_refused"]
    assert [("evil" in each, "older than" in each) for each in refused] == [(True, True)]


def test_a_forged_result_is_passed_over_and_the_right_one_comes(
    app: App, stranger: App, caplog: pytest.LogCaptureFixture
) -> None:
    result = app.tasks["add"].delay(1, 2)
    body = json.dumps({"task_id": result.id, "status": "SUCCESS", "result": 99, "traceback": None}).encode()
    properties = Properties(
        content_type="application/json", content_encoding="utf-8", correlation_id=result.id
    )
    reply_to = app.backend.reply_to(timeout=5)
    stranger.transport.publish(
        OutgoingMessage(exchange="", routing_key=reply_to, body=body, properties=properties)
    )

    with pytest.raises(ResultTimeout):
        result.get(0.3)
    with working(app):
        assert result.get(10) == 3
    assert any("passed over: unsigned" in record.getMessage() for record in caplog.records)


def test_a_forged_outcome_does_not_count_in_a_chord(app: App, stranger: App) -> None:
    queues: SimpleQueue[str] = SimpleQueue()

    @app.task(name="told", bind=True)
    def told(self: Task[..., Any], value: int) -> int:
        queue = self.request.joins[0][0]
        for index in (0, 1):
            stranger.transport.publish(outcome_message(queue, index, "x", value=1000))
        queues.put(queue)
        return value

    with working(app):
        assert chord([told.s(1), app.tasks["add"].s(1, 1)], app.tasks["total"].s())().get(20) == 3
    assert queues.get(timeout=1).startswith("amqp_tasks.join.")


def test_a_copy_of_what_has_succeeded_is_not_run_again_with_a_store(
    name: str, stranger: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_once, "WAIT", 0.05)
    ran: SimpleQueue[int] = SimpleQueue()
    with app_with(name, security_signing_keys=KEYS, task_idempotency_store="memory://") as app:

        @app.task(name="pay")
        def pay(value: int) -> int:
            ran.put(value)
            return value

        message = TaskTemplate("pay").build(exchange="", routing_key="default", args=(1,))
        app.topology_for(["default"])
        with working(app):
            app.transport.publish(message)
            assert ran.get(timeout=10) == 1
            stranger.transport.publish(
                OutgoingMessage(
                    exchange="", routing_key="default", body=message.body, properties=message.properties
                )
            )
            assert pay.delay(2).get(10) == 2
            eventually(lambda: app.transport.queue_status("default").messages == 0)  # type: ignore[union-attr]
        assert [ran.get(timeout=1) for _ in range(ran.qsize())] == [2]


def test_a_forged_letter_does_not_stand_for_a_failed_step(app: App, stranger: App) -> None:
    begins, breaks = Event(), [True]

    @app.task(name="fragile")
    def fragile() -> int:
        assert begins.wait(10)
        if breaks.pop() if breaks else False:
            raise ValueError("no")
        return 1

    with working(app):
        result = Workflow(id="w").step("a", fragile.si()).step("b", app.tasks["add"].s(1), after="a").delay()
        mark = StepMark(workflow_id="w", step="a", joins=1)
        forged = TaskTemplate("fragile").build(
            exchange="", routing_key="default", task_id=result["a"].id, headers=mark.header
        )
        stranger.transport.publish(forged)
        eventually(lambda: reasons(app) == ["unsigned"], within=10)
        begins.set()
        eventually(lambda: reasons(app) == ["unsigned", "failed"], within=10)

        assert [each.letter.reason for each in app.workflows.failed_steps("w")] == ["failed"]
        assert result.resume().count == 1
        assert result.get(10) == {"a": 1, "b": 2}
    assert reasons(app) == ["unsigned"]
    assert app.workflows.failed_steps("w") == []
