"""Retries through a worker of `memory://`: what is sent again, in which order, and what the caller learns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from amqp_routing import DelayedRetryType, Queue
from amqp_tasks import App, Task
from amqp_tasks.app._retry import Again
from amqp_tasks.errors import (
    EncodeError,
    Ignore,
    MaxRetriesExceededError,
    MessageTooLarge,
    Reject,
    Retry,
    Snooze,
    TaskError,
)
from amqp_tasks.message import OutgoingMessage, Payload, read_payload
from amqp_tasks.transport import ConsumerOptions, Delivery, Settlement
from amqp_tasks.worker._again import message_of
from amqp_tasks.worker._job import Job
from support import eventually
from support.collector import Collector
from support.fake_deliveries import job_of
from support.inside import running

AnyTask = Task[..., Any]


working = partial(running, pool="threads", concurrency=1)


@pytest.fixture
def app() -> Iterator[App]:
    with App("retrying", broker=f"memory://{uuid4().hex}/", task_queues=["default", "other"]) as made:
        yield made


def waiting_in(app: App, queue_name: str) -> Delivery:
    """The first message of a queue."""
    collector = Collector()
    consumer = app.transport.consume(
        [queue_name],
        ConsumerOptions(prefetch=1),
        on_deliveries=collector.on_deliveries,
        on_event=collector.on_event,
    )
    (found,) = collector.wait_deliveries(1)
    consumer.settle(found, Settlement.ACK)
    consumer.close(timeout=5)
    return found


def depth(app: App, queue_name: str = "default") -> int:
    status = app.transport.queue_status(queue_name)
    return status.messages if status is not None else 0


# -- the message of the next run


def test_the_next_run_has_the_same_message_but_for_the_count() -> None:
    headers = {
        "retries": 4, "root_id": "r", "parent_id": "p", "group": "g", "group_index": 2, "origin": "o", "x-tenant": "acme",
        "expires": "2090-01-01T00:00:00+00:00", "timelimit": [9, 8], "ignore_result": False, "argsrepr": "()",
        "x-death": [{"count": 1}], "x-first-death-queue": "q", "x-delivery-count": 3, "CC": ["elsewhere"],
        "x-error-first-time": "2020-01-01T00:00:00+00:00", "x-error-reason": "failed",
    }  # fmt: skip
    job = job_of(
        "i", queue_name="q1", headers=headers, body=b"as it came", priority=7, correlation_id="c", reply_to="me",
        expiration="60000", user_id="guest", delivery_mode=1, message_id="m", type="t", app_id="a",
    )  # fmt: skip
    job.delivery.exchange, job.delivery.routing_key = "topic", "some.key"

    message = _message(job, Again(delay=2.5))

    properties = message.properties
    assert (message.exchange, message.routing_key, message.body) == ("", "q1", b"as it came")
    assert (message.delay, message.mandatory) == (2.5, True)
    assert properties.all_headers() == {
        "task": "act", "id": "i", "retries": 5, "root_id": "r", "parent_id": "p", "group": "g", "group_index": 2,
        "origin": "o", "x-tenant": "acme", "expires": "2090-01-01T00:00:00+00:00", "timelimit": [9, 8],
        "ignore_result": False, "argsrepr": "()", "eta": "2026-01-01T00:00:02.500000+00:00", "x-error-first-time": "2020-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert (properties.priority, properties.correlation_id, properties.reply_to) == (7, "c", "me")
    assert (properties.expiration, properties.user_id, properties.delivery_mode) == (None, None, 1)
    assert (properties.message_id, properties.type, properties.app_id) == ("m", "t", "a")


def test_a_large_header_is_kept_while_it_fits_a_message() -> None:
    job = job_of("i", headers={"x-large": "x" * 100_000})

    message = _message(job, Again(delay=0))

    assert message.properties.all_headers()["x-large"] == "x" * 100_000


def test_new_arguments_keep_what_follows_the_task() -> None:
    job = job_of("i", headers={"compression": "application/x-gzip"})

    message = _message(
        job,
        Again(delay=0, args=(1,), kwargs={"y": 2}, labels=("(1,)", "{'y': 2}"), priority=3),
        embed={"chain": [{"task": "next"}]},
    )

    copy = job_of("i", body=message.body, headers=message.properties.all_headers())
    payload = read_payload(copy.envelope, copy.delivery.body, accept=("json",))  # type: ignore[arg-type]  # it was read
    assert (payload.args, payload.kwargs, payload.embed) == ([1], {"y": 2}, {"chain": [{"task": "next"}]})
    assert message.properties.all_headers()["argsrepr"] == "(1,)"
    assert (message.properties.priority, message.delay) == (3, None)


def test_a_snooze_is_another_run_and_not_counted() -> None:
    first = job_of("i", headers={"retries": 1})
    message = _message(first, Again(delay=0, is_counted=False))
    second = job_of("i", headers=message.properties.all_headers())
    third = job_of("i", headers=_message(second, Again(delay=0)).properties.all_headers())

    assert [job.envelope.retries for job in (first, second, third)] == [1, 1, 2]  # type: ignore[union-attr]  # read
    assert len({first.key, second.key, third.key}) == 3
    assert second.envelope.user_headers.keys() == {"x-amqp-tasks-snoozes"}  # type: ignore[union-attr]  # read


def _message(job: Job, again: Again, embed: dict[str, Any] | None = None) -> OutgoingMessage:
    return message_of(
        job, again, Payload([], {}, embed or {}), now=datetime(2026, 1, 1, tzinfo=UTC), max_bytes=10_000
    )


# -- through a worker


def test_fifty_retries_in_a_row_end_with_the_result(app: App) -> None:
    seen: list[tuple[str | None, int, Any, Any]] = []

    @app.task(bind=True, max_retries=None)
    def stubborn(self: AnyTask, x: int) -> int:
        request = self.request
        seen.append((request.id, request.retries, request.root_id, request.headers))
        if request.retries < 50:
            raise self.retry(countdown=0)
        return x

    with working(app):
        result = stubborn.apply_async((7,), headers={"x-tenant": "acme"})
        assert result.get(timeout=30) == 7

    assert seen == [(result.id, n, result.id, {"x-tenant": "acme"}) for n in range(51)]
    assert result.retries == 50
    assert depth(app) == depth(app, "default.dead") == 0


def test_the_caller_sees_retry_and_goes_on_waiting(app: App) -> None:
    gate = threading.Event()

    @app.task(bind=True)
    def twice(self: AnyTask) -> str:
        if not self.request.retries:
            raise self.retry(exc=ValueError("not yet"), countdown=0)
        gate.wait(10)
        return "done"

    with working(app):
        result = twice.delay()
        eventually(lambda: result.state == "RETRY", within=10)
        assert not result.ready()
        gate.set()
        assert result.get(timeout=10) == "done"


def test_a_task_retried_too_often_fails_as_any_other(app: App) -> None:
    @app.task(bind=True, max_retries=1)
    def reasonless(self: AnyTask, x: int) -> None:
        self.retry(countdown=0)

    @app.task(
        autoretry_for=(ValueError,), retry_kwargs={"max_retries": 2, "countdown": 0}, ignore_result=True
    )
    def unheard() -> None:
        raise ValueError("no")

    with working(app):
        with pytest.raises(MaxRetriesExceededError, match="has been retried 1 times"):
            reasonless.delay(3).get(timeout=10)
        unheard.delay()
        eventually(lambda: depth(app, "default.dead") == 1, within=10)

    headers = waiting_in(app, "default.dead").properties.all_headers()
    assert (headers["x-error-reason"], headers["x-error-attempts"]) == ("failed", 3)
    assert headers["x-error-first-time"] < headers["x-error-time"]


def test_a_retry_may_change_arguments_queue_and_options(app: App) -> None:
    seen: list[tuple[Any, ...]] = []

    @app.task(bind=True)
    def move(self: AnyTask, x: int, *, y: int) -> int:
        info = self.request.delivery_info
        seen.append((x, y, info.get("queue"), self.request.timelimit, self.request.headers))
        if x < 3:
            self.retry((3,), countdown=0, queue="other", time_limit=50, headers={"b": 2})
        return x + y

    with working(app, queues=["default", "other"]):
        assert move.apply_async((1,), {"y": 4}, headers={"a": 1}, soft_time_limit=40).get(timeout=10) == 7

    assert seen == [
        (1, 4, "default", (None, 40.0), {"a": 1}),
        (3, 4, "other", (50.0, 40.0), {"a": 1, "b": 2}),
    ]


def test_a_retry_that_cannot_be_written_fails_the_task(app: App) -> None:
    app.conf.warn_message_bytes, app.conf.max_message_bytes = 5000, 10_000
    told: list[str] = []

    class Noting(Task[..., Any]):
        def after_return(self, status: str, *rest: Any) -> None:
            told.append(status)

    @app.task(bind=True, base=Noting)
    def grow(self: AnyTask, x: Any) -> None:
        if x == "headers":
            self.retry(countdown=0, headers={"x-much": "x" * 150_000})
        self.retry((object() if x == "object" else "x" * 20_000,), countdown=0)

    with working(app):
        with pytest.raises(EncodeError, match="object"):
            grow.delay("object").get(timeout=10)
        with pytest.raises(MessageTooLarge, match="arguments of the retry"):
            grow.delay("large").get(timeout=10)
        with pytest.raises(MessageTooLarge, match="headers of the retry"):
            grow.delay("headers").get(timeout=10)
    assert told == ["FAILURE"] * 3


@pytest.mark.parametrize("how", ["no throw", "caught", "by hand"])
def test_a_retry_is_sent_however_it_is_asked_for(app: App, how: str) -> None:
    runs: list[int] = []
    both = threading.Event()

    @app.task(bind=True)
    def ask(self: AnyTask) -> int:
        runs.append(self.request.retries)
        if self.request.retries:
            both.set()
            return 2
        if how == "by hand":
            raise Retry(when=0)
        with suppress(Exception):
            self.retry(countdown=0, throw=how == "caught")
        return 1

    with working(app):
        result = ask.delay()
        # The outcome of the first run stands, if there is one.
        assert result.get(timeout=10) == (2 if how == "by hand" else 1)
        assert both.wait(10)
    assert runs == [0, 1]


def test_a_snoozed_task_runs_again_without_a_retry(app: App) -> None:
    seen: list[tuple[str | None, int]] = []

    @app.task(bind=True, max_retries=0)
    def later(self: AnyTask) -> int:
        seen.append((self.request.id, self.request.retries))
        if len(seen) < 4:
            raise Snooze(0)
        return self.request.retries

    with working(app):
        result = later.delay()
        assert result.get(timeout=10) == 0

    assert seen == [(result.id, 0)] * 4
    assert depth(app) == 0


def test_an_ignored_task_is_acked_and_says_nothing(app: App) -> None:
    """Row B016."""

    @app.task
    def ignored() -> None:
        raise Ignore

    @app.task
    def after() -> int:
        return 1

    with working(app):
        result = ignored.delay()
        assert after.delay().get(timeout=10) == 1
        assert result.state == "PENDING"
    assert depth(app) == depth(app, "default.dead") == 0


def test_a_rejected_task_is_dead_lettered_and_its_caller_told(app: App) -> None:
    """Row B016."""

    @app.task
    def rejected() -> None:
        raise Reject("no such customer")

    with working(app), pytest.raises(TaskError, match="rejected: no such customer"):
        rejected.delay().get(timeout=10)

    headers = waiting_in(app, "default.dead").properties.all_headers()
    assert (headers["x-error-reason"], headers["x-error-message"]) == ("rejected", "no such customer")


@pytest.mark.parametrize("acks_late", [True, False])
def test_a_task_rejected_to_its_queue_is_delivered_again(app: App, acks_late: bool) -> None:
    seen: list[bool | None] = []

    @app.task(bind=True, acks_late=acks_late)
    def bounce(self: AnyTask) -> int:
        seen.append(self.request.delivery_info.get("redelivered"))
        if len(seen) < 3:
            raise Reject(requeue=True)
        return len(seen)

    with working(app):
        assert bounce.delay().get(timeout=10) == 3

    # A copy takes its place: RabbitMQ does not count what is nacked from 4.3 on.
    assert seen == [False, False, False]


@pytest.mark.parametrize("acks_late", [True, False])
def test_row_r02_a_task_that_goes_back_to_its_queue_for_ever_becomes_a_dead_letter(
    app: App, acks_late: bool
) -> None:
    app.conf.update(task_requeue_limit=3)
    runs: list[str | None] = []
    died: list[BaseException] = []

    def on_dead(exc: Exception, *about: Any) -> None:
        died.append(exc)

    @app.task(bind=True, acks_late=acks_late, on_dead=on_dead)
    def bounce(self: AnyTask) -> None:
        runs.append(self.request.id)
        raise Reject("not here", requeue=True)

    with working(app), pytest.raises(TaskError, match=r"requeue-limit: .* 3 times .*: not here"):
        bounce.delay().get(timeout=10)

    assert len(runs) == 4
    assert [str(exc).split(":")[0] for exc in died] == ["requeue-limit"]
    headers = waiting_in(app, "default.dead").properties.all_headers()
    assert headers["x-error-reason"] == "requeue-limit"


def test_a_dead_letter_that_is_put_back_may_go_back_to_its_queue_as_often_again(app: App) -> None:
    app.conf.update(task_requeue_limit=2)
    runs: list[int] = []

    @app.task
    def bounce() -> None:
        runs.append(1)
        raise Reject(requeue=True)

    with working(app):
        bounce.delay()
        eventually(lambda: depth(app, "default.dead") == 1)
        assert app.dead_letters.requeue().count == 1
        eventually(lambda: len(runs) == 6)


def test_rows_b038_r07_what_goes_back_to_a_queue_with_delayed_retries_is_rejected_and_counted_there(
    app: App,
) -> None:
    queue = Queue("slow", delayed_retry_type=DelayedRetryType.FAILED, delayed_retry_min=5)
    app.conf.update(task_queues=["default", queue], task_requeue_limit=2)
    seen: list[bool | None] = []

    @app.task(bind=True, queue="slow")
    def bounce(self: AnyTask) -> None:
        seen.append(self.request.delivery_info.get("redelivered"))
        raise Reject(requeue=True)

    with working(app, queues=["slow"]), pytest.raises(TaskError, match="requeue-limit"):
        bounce.delay().get(timeout=10)

    assert seen == [False, True, True]


def test_a_hook_that_raises_changes_nothing(app: App, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Task[..., Any]):
        def on_success(self, *about: Any) -> None:
            raise OSError("hook")

        def on_failure(self, *about: Any) -> None:
            raise SystemExit(3)

        def after_return(self, *about: Any) -> None:
            self.retry()

    @app.task(base=Bad)
    def run(x: int) -> int:
        return 1 // x

    with working(app):
        assert run.delay(1).get(timeout=10) == 1
        with pytest.raises(ZeroDivisionError):
            run.delay(0).get(timeout=10)

    failed = [
        record.getMessage() for record in caplog.records if getattr(record, "action", "") == "hook_failed"
    ]
    assert [text.split()[1] for text in failed] == [
        "on_success",
        "after_return",
        "on_failure",
        "after_return",
    ]
    assert "a hook cannot retry it" in caplog.text


def test_what_becomes_of_tasks_is_logged_and_not_as_an_error(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(bind=True)
    def once_more(self: AnyTask) -> int:
        if not self.request.retries:
            self.retry(exc=ValueError("the reason"), countdown=0)
        return 1

    @app.task
    def refused() -> None:
        raise Reject("bad")

    with working(app), caplog.at_level(logging.INFO, "amqp_tasks.worker"):
        once_more.delay().get(timeout=10)
        with pytest.raises(TaskError):
            refused.delay().get(timeout=10)

    assert "retry: Retry in 0s: ValueError('the reason')" in caplog.text
    assert "] rejected: bad" in caplog.text
    assert "ERROR" not in {record.levelname for record in caplog.records}
