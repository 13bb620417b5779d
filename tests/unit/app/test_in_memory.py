"""Apps on `memory://`: calls, results and a worker in one process, as users' own tests have them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from amqp_routing import Exchange, ExchangeType, Queue, QueueType
from amqp_tasks import App, AsyncResult, Task
from amqp_tasks.errors import (
    BulkSendError,
    DepthLimitExceeded,
    MessageTooLarge,
    SendUnknown,
    TaskRevokedError,
    UnroutableError,
)
from amqp_tasks.message import OutgoingMessage, read_envelope
from amqp_tasks.transport import ConsumerOptions
from amqp_tasks.worker._paused import read_paused_queues
from support.apps import MakeApp
from support.collector import Collector
from support.eventually import eventually, wait_until
from support.inside import running


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Apps with an embedded broker of their own, closed after the test."""
    made: list[App] = []

    def make(**settings: Any) -> App:
        app = App("proj", broker=f"memory://{uuid4().hex}/", **settings)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


working = partial(running, pool="threads", concurrency=2)


def waiting_in(app: App, queue_name: str, count: int) -> list[Any]:
    """The messages of a queue, in the order they are served."""
    collector = Collector()
    consumer = app.transport.consume(
        [queue_name],
        ConsumerOptions(prefetch=count),
        on_deliveries=collector.on_deliveries,
        on_event=collector.on_event,
    )
    found = collector.wait_deliveries(count)
    consumer.close(timeout=5)
    return [read_envelope(delivery.properties) for delivery in found]


def add(x: int, y: int) -> int:
    return x + y


def test_a_worker_in_a_thread_serves_calls_until_it_is_stopped(make_app: MakeApp) -> None:
    app = make_app()
    task = app.task(add)

    with working(app):
        assert task.delay(1, 2).get(10) == 3
        assert task.map_async((i, i) for i in range(200)).get(10) == [2 * i for i in range(200)]
        with app.pipeline() as pipeline:
            first = pipeline.delay(task, 1, 1)
        assert (first.get(10), pipeline.results.get(10)) == (2, [2])


def test_a_countdown_in_a_pipeline_counts_from_the_call_not_from_the_end_of_the_block(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sent = make_app(), list[OutgoingMessage]()
    task = app.task(add)

    def noted(messages: Iterable[OutgoingMessage]) -> Sequence[None]:
        sent.extend(messages)
        return [None] * len(sent)

    monkeypatch.setattr(app.transport, "publish_many", noted)

    with app.pipeline() as pipeline:
        pipeline.apply_async(task, (1, 2), countdown=60)
        called = time.monotonic()
        pipeline.delay(task, 3, 4)
        spent = time.monotonic() - called

    delayed, at_once = (message.delay for message in sent)
    assert delayed is not None
    assert 0 < delayed <= 60 - spent
    assert at_once is None


def test_a_pipeline_that_is_interrupted_while_it_sends_tells_those_who_wait(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, results = make_app(task_publish_window=2), list[AsyncResult[int]]()
    task = app.task(add)

    def interrupted(_messages: object) -> Sequence[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.transport, "publish_many", interrupted)

    def collect() -> None:
        with app.pipeline() as pipeline:
            results.append(pipeline.delay(task, 1, 2))
            pipeline.delay(task, 3, 4)

    with pytest.raises(KeyboardInterrupt):
        collect()
    with pytest.raises(SendUnknown, match="broken off"):
        results[0].get(timeout=1)


def test_an_error_of_a_router_is_an_outcome_in_a_bulk_send_and_keeps_no_other_call_from_being_sent(
    make_app: MakeApp,
) -> None:
    def by_tenant(name: str, args: Any, kwargs: Any, options: Any, task: Any) -> dict[str, str]:
        return {"queue": {"a": "default"}[args[0]]}

    app = make_app(task_routes=[by_tenant])

    with pytest.raises(BulkSendError) as caught:
        app.send_many([("t", ("a",)), ("t", ("b",)), ("t", ("a",))])

    assert [type(outcome) for outcome in caught.value.outcomes] == [type(None), KeyError, type(None)]
    assert len(waiting_in(app, "default", 2)) == 2


def test_rate_limits_hold_here_too(make_app: MakeApp) -> None:
    app = make_app()
    plain = app.task(add)

    @app.task(rate_limit="4/s")
    def started() -> float:
        return time.monotonic()

    with working(app):
        # The last two wait in the broker, as their turns are more than two seconds away.
        paced = [started.delay() for _ in range(11)]
        assert plain.delay(1, 2).get(10) == 3
        assert not paced[-1].ready()
        starts = sorted(result.get(20) for result in paced)

    # Never more than four in a second; a start may be seen late on a busy machine.
    assert min(later - sooner for sooner, later in zip(starts, starts[4:], strict=False)) >= 1.0 - 0.2


def test_queues_can_be_paused_here_too(make_app: MakeApp) -> None:
    app = make_app(task_queues=["default", "mails"])
    task = app.task(add)

    app.control.pause("mails")
    with working(app):
        waiting = task.apply_async((1, 2), queue="mails")
        assert task.delay(3, 4).get(10) == 7
        assert read_paused_queues(app, ["default", "mails"]) == frozenset({"mails"})
        assert waiting.state == "PENDING"

        app.control.resume("mails")
        assert waiting.get(10) == 3


def test_the_larger_priority_is_served_first(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Queue("p", type=QueueType.CLASSIC, max_priority=9)])

    for priority in (1, 9, 5):
        app.send_task("t", queue="p", priority=priority)

    assert [envelope.priority for envelope in waiting_in(app, "p", 3)] == [9, 5, 1]


def test_a_message_that_no_queue_takes_is_refused(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Exchange("events", ExchangeType.TOPIC)])

    with pytest.raises(UnroutableError):
        app.send_task("t", exchange="events", routing_key="nobody")


def test_a_large_message_warns_once_for_its_task_and_a_larger_one_is_only_refused(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(warn_message_bytes=1000, max_message_bytes=10_000)

    with caplog.at_level(logging.WARNING, "amqp_tasks.app"):
        for task in ("one", "one", "two"):
            app.send_task(task, ["x" * 2000])
        app.send_task("one", ["x" * 500])
        with pytest.raises(MessageTooLarge, match="pass a reference"):
            app.send_task("three", ["x" * 20_000])

    warned = [record for record in caplog.records if getattr(record, "action", "") == "message_size"]
    assert [getattr(record, "task_name", None) for record in warned] == ["one", "two"]


def test_too_large_a_call_in_bulk_is_one_of_the_outcomes(make_app: MakeApp) -> None:
    app = make_app(max_message_bytes=10_000, warn_message_bytes=10_000)

    with pytest.raises(BulkSendError) as caught:
        app.send_many([("t", ("x",)), ("t", ("x" * 20_000,))])

    assert [type(outcome) for outcome in caught.value.outcomes] == [type(None), MessageTooLarge]


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_task_that_calls_itself_for_ever_is_stopped_at_the_depth_limit(
    make_app: MakeApp, is_eager: bool
) -> None:
    app = make_app(task_depth_limit=3, task_always_eager=is_eager)
    ended, depths, facts = threading.Event(), list[int](), list[tuple[str, int]]()

    @app.task(bind=True)
    def again(self: Task[..., Any]) -> None:
        depths.append(self.request.depth)
        try:
            again.delay()
        except DepthLimitExceeded as exc:
            facts.append((exc.task_name, exc.limit))
            ended.set()

    if is_eager:
        again.delay()
    else:
        with working(app):
            again.delay()
            assert ended.wait(10)

    assert facts == [(again.name, 3)]
    assert depths == [0, 1, 2, 3]


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_task_sees_the_amqp_properties_that_its_caller_set(make_app: MakeApp, is_eager: bool) -> None:
    app = make_app(task_always_eager=is_eager, timezone="Europe/Berlin")
    given: dict[str, Any] = {"message_id": "m-1", "app_id": "shop", "type": "order.paid", "user_id": "guest"}

    @app.task(bind=True)
    def properties(self: Task[..., Any]) -> dict[str, Any]:
        return dict(self.request.properties)

    with nullcontext() if is_eager else working(app):
        told = properties.apply_async(**given, timestamp=datetime(2023, 11, 14, 23, 13, 20)).get(10)  # noqa: DTZ001
        untold = properties.delay().get(10)

    assert told == {**given, "timestamp": 1_700_000_000}
    assert untold == {}


def test_messages_of_one_id_of_the_callers_own_are_told_apart(make_app: MakeApp) -> None:
    app = make_app()

    @app.task(bind=True)
    def properties(self: Task[..., Any]) -> dict[str, Any]:
        return dict(self.request.properties)

    with working(app):
        first, second = [properties.apply_async(task_id="sync-user-5").get(10) for _ in range(2)]
        own = properties.apply_async(task_id="sync-user-5", message_id="mine").get(10)

    assert first.keys() == second.keys() == {"message_id"}
    assert first != second
    assert own == {"message_id": "mine"}


@pytest.mark.parametrize(("inherits", "inherited"), [(True, 7), (False, 2)])
def test_children_take_the_priority_of_their_parent_where_they_have_none(
    make_app: MakeApp, inherits: bool, inherited: int
) -> None:
    app = make_app(
        task_inherit_parent_priority=inherits,
        task_default_priority=2,
        task_routes={"routed": {"priority": 3}, "*": {"queue": "children"}},
    )
    app.task(name="own", priority=4)(add)

    @app.task(queue="parents")
    def parent() -> None:
        app.send_task("plain")
        app.send_task("plain", priority=5)
        app.send_task("routed", queue="children")
        app.send_task("own", (1, 2))
        app.send_many([("plain",)])

    with working(app, queues=["parents"]):
        parent.apply_async(priority=7).get(10)

    sent = sorted(envelope.priority for envelope in waiting_in(app, "children", 5))
    assert sent == sorted([inherited, 5, 3, 4, inherited])


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_call_is_no_child_when_it_says_so(make_app: MakeApp, is_eager: bool) -> None:
    app = make_app(task_always_eager=is_eager)
    leaf = app.task(add)

    @app.task
    def parent() -> str:
        leaf.apply_async((1, 2), add_to_parent=False)
        return leaf.apply_async((3, 4)).id

    def check() -> None:
        result = parent.delay()
        child = result.get(10)
        assert [known.id for known in result.children] == [child]

    if is_eager:
        check()
    else:
        with working(app):
            check()


def test_a_task_registered_after_a_call_by_name_brings_its_options(make_app: MakeApp) -> None:
    app = make_app(task_annotations={"proj.add": {"priority": 4}})
    app.send_task("proj.add", (1, 2))

    app.task(name="proj.add", queue="mine")(add)
    app.send_task("proj.add", (1, 2))

    assert waiting_in(app, "mine", 1)[0].priority == 4


def test_bulk_results_of_eager_calls_are_there(make_app: MakeApp) -> None:
    app = make_app(task_always_eager=True)
    task = app.task(add)

    with app.pipeline() as pipeline:
        pipeline.delay(task, 1, 2)
        pipeline.delay(task, 3, 4)

    assert pipeline.results.get() == [3, 7]
    assert app.send_many([(task, (1, 1))]).get() == [2]


def test_a_child_forked_while_another_thread_held_the_apps_lock_goes_on(make_app: MakeApp) -> None:
    app = make_app()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with app._lock:
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    pid = os.fork()
    if pid == 0:
        asked = threading.Thread(target=lambda: app.topology, daemon=True)
        asked.start()
        asked.join(5)
        os._exit(1 if asked.is_alive() else 0)
    release.set()
    holder.join(10)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_task_that_gives_up_when_revoked_is_not_retried_and_only_after_return_is_told(
    make_app: MakeApp,
) -> None:
    app = make_app()
    told: list[tuple[str, Any]] = []
    has_begun = threading.Event()

    class Told(Task[..., Any]):
        def on_failure(self, *about: Any) -> None:
            told.append(("on_failure", about))

        def on_retry(self, *about: Any) -> None:
            told.append(("on_retry", about))

        def on_dead(self, *about: Any) -> None:
            told.append(("on_dead", about))

        def after_return(self, status: str, retval: Any, *about: Any) -> None:
            told.append(("after_return", (status, str(retval))))

    @app.task(base=Told, bind=True, autoretry_for=(Exception,))
    def asks(self: Task[..., Any]) -> None:
        was_cancelled = self.cancelled()
        has_begun.set()
        wait_until(self.cancelled, within=10)
        raise TaskRevokedError(f"cancelled at first: {was_cancelled}")

    with working(app):
        result = asks.delay()
        assert has_begun.wait(5)
        result.revoke()
        with pytest.raises(TaskRevokedError, match="cancelled at first: False"):
            result.get(timeout=5)

    assert told == [("after_return", ("REVOKED", "cancelled at first: False"))]


def test_outside_of_a_worker_nothing_is_cancelled(make_app: MakeApp) -> None:
    app = make_app(task_always_eager=True)
    asks = app.task(name="asks", bind=True)(lambda self: self.cancelled())

    assert (asks(), asks.delay().get(), asks.cancelled()) == (False, False, False)


def test_what_runs_inside_of_a_revoked_run_is_cancelled_with_it(make_app: MakeApp) -> None:
    app = make_app(task_track_started=True)
    inner = app.task(name="inner", bind=True)(lambda self: self.cancelled())

    @app.task(bind=True)
    def outer(self: Task[..., Any]) -> list[bool]:
        wait_until(self.cancelled, within=10)
        return [inner(), inner.apply().result]

    with working(app):
        result = outer.delay()
        eventually(lambda: result.state == "STARTED")
        result.revoke()
        assert result.get(timeout=5) == [True, True]
