"""Calls against a real broker: where messages go, what they carry, what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue, QueueType
from amqp_tasks.errors import (
    BulkSendError,
    ClosedError,
    NotSent,
    PublishError,
    UnknownQueue,
    UnroutableError,
    UserIdRefused,
)
from support.apps import MakeApp, RunWorker, echo
from support.eventually import eventually
from support.inside import running
from support.proxy import TcpProxy
from support.raw import RawClient
from support.vhosts import Vhost


def add(x: int, y: int) -> int:
    return x + y


def test_a_call_lies_in_the_default_queue_with_its_arguments(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    task = make_app().task(add)

    result = task.delay(1, 2)

    message = raw_client.get("default")
    assert message.body.startswith(b"[[1,2],{},")
    assert message.properties.correlation_id == result.id
    assert (message.exchange, message.routing_key) == ("", "default")


def test_a_task_known_by_name_only_is_sent(make_app: MakeApp, raw_client: RawClient) -> None:
    make_app().send_task("elsewhere.mail", ["a"], {"age": 13}, task_id="小家伙")

    message = raw_client.get("default")
    assert (message.headers["task"], message.headers["id"]) == ("elsewhere.mail", "小家伙")


def test_the_options_of_a_call_reach_the_message(make_app: MakeApp, raw_client: RawClient) -> None:
    task = make_app().task(name="加", ignore_result=True)(add)
    soon = datetime.now(UTC) + timedelta(hours=1)

    task.apply_async(
        (1, 2),
        queue="lopri",
        priority=5,
        serializer="msgpack",
        compression="zlib",
        headers={"tenant": "acme"},
        expires=soon,
        shadow="shown",
        time_limit=10,
        soft_time_limit=5,
    )

    message = raw_client.get("lopri")
    headers = message.headers
    assert message.properties.content_type == "application/x-msgpack"
    assert message.properties.priority == 5
    assert headers["compression"] == "application/x-gzip"
    assert (headers["task"], headers["tenant"], headers["shadow"]) == ("加", "acme", "shown")
    assert headers["timelimit"] == [10, 5]
    assert headers["ignore_result"] is True
    assert datetime.fromisoformat(headers["expires"]) == soon
    assert not message.properties.reply_to


def test_properties_of_the_callers_own_reach_the_message(
    make_app: MakeApp, vhost: Vhost, raw_client: RawClient
) -> None:
    user = unquote(urlsplit(vhost.url).username or "")

    make_app().send_task(
        "t", message_id="m", app_id="shop", type="paid", user_id=user, timestamp=1_700_000_000
    )

    sent = raw_client.get("default").properties
    assert (sent.message_id, sent.app_id, sent.type, sent.user_id) == ("m", "shop", "paid", user)
    assert sent.timestamp == 1_700_000_000


@pytest.mark.parametrize("stranger", ["stranger", "d'or", "jörg", "s" * 250])
def test_a_strangers_user_id_fails_its_own_calls_and_no_other(make_app: MakeApp, stranger: str) -> None:
    app = make_app(result_backend=None)
    app.send_task("t")
    wrong = {5, 6, 50}

    with pytest.raises(BulkSendError) as caught:
        app.send_many(("t", (i,), {}, {"user_id": stranger} if i in wrong else {}) for i in range(100))
    with pytest.raises(UserIdRefused, match=r"user_id=.* set it to the user of broker_url"):
        app.send_task("t", user_id=stranger)

    outcomes = caught.value.outcomes
    assert {i for i, outcome in enumerate(outcomes) if type(outcome) is UserIdRefused} == wrong
    assert sum(outcome is not None for outcome in outcomes) == len(wrong)


def test_routes_choose_the_queue_and_the_call_wins_over_them(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    app = make_app(task_routes={"mail.*": {"queue": "mails", "priority": 3}})

    app.send_task("mail.send")
    app.send_task("mail.send", queue="urgent", priority=9)

    assert raw_client.get("mails").properties.priority == 3
    assert raw_client.get("urgent").properties.priority == 9


def test_a_queue_of_a_topic_exchange_is_reached_through_it(make_app: MakeApp, raw_client: RawClient) -> None:
    queues = [
        Exchange("events", ExchangeType.TOPIC),
        Queue("audit"),
        Binding("events", "audit", routing_key="audit.#"),
    ]
    app = make_app(task_queues=queues)

    app.send_task("t", exchange="events", routing_key="audit.login")
    app.send_task("t", queue="audit")

    assert raw_client.get("audit").routing_key == "audit.login"
    assert raw_client.get("audit").exchange == "events"


def test_a_message_that_no_queue_takes_is_an_error_with_exchange_and_key(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Exchange("events", ExchangeType.TOPIC)])

    with pytest.raises(UnroutableError) as caught:
        app.send_task("t", exchange="events", routing_key="nobody")

    assert (caught.value.exchange, caught.value.routing_key) == ("events", "nobody")


def test_an_unknown_queue_is_refused_when_none_may_be_created(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Queue("hipri")], task_create_missing_queues=False)

    with pytest.raises(UnknownQueue, match="did you mean 'hipri'"):
        app.send_task("t", queue="hipry")


def test_priorities_are_served_largest_first(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app(task_queues=[Queue("p", type=QueueType.CLASSIC, max_priority=10)])

    for priority in (1, 9, 5):
        app.send_task("t", queue="p", priority=priority)

    assert [raw_client.get("p").properties.priority for _ in range(3)] == [9, 5, 1]


def test_a_deleted_queue_is_declared_again_by_the_next_call(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    app.send_task("t")
    raw_client.channel.queue_delete("default")

    result = app.send_task("t")

    assert raw_client.get("default").properties.correlation_id == result.id


def test_an_app_runs_its_own_worker_in_a_thread(make_app: MakeApp) -> None:
    app = make_app()
    task = app.task(add)

    with running(app, concurrency=2):
        assert task.delay(1, 2).get(10) == 3


def test_delay_returns_at_once_for_a_long_task(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(echo)
    worker = run_worker(app)
    worker.is_holding = True

    result = task.delay("late")

    assert not result.ready()
    worker.run(eventually(lambda: worker.held[0]))
    assert result.get(20) == "late"


def test_without_retry_a_broker_that_is_down_raises_at_once(make_app: MakeApp) -> None:
    app = make_app(broker="amqp://127.0.0.1:1//", result_backend=None)

    started = time.monotonic()
    with pytest.raises(NotSent):
        app.send_task("t", retry=False)

    assert time.monotonic() - started < 3.0


def test_the_deadline_ends_a_call_to_a_broker_that_is_down(make_app: MakeApp) -> None:
    app = make_app(broker="amqp://127.0.0.1:1//")

    started = time.monotonic()
    with pytest.raises(NotSent) as caught:
        app.send_task("t", timeout=0.5)

    assert time.monotonic() - started < 4.0
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_bulk_send_waits_once_for_a_broker_that_is_down(make_app: MakeApp) -> None:
    app = make_app(broker="amqp://127.0.0.1:1//")

    started = time.monotonic()
    with pytest.raises(BulkSendError) as caught:
        app.send_many([("t", (i,)) for i in range(100)], timeout=1.0)

    assert (len(caught.value.outcomes), caught.value.not_sent) == (100, 100)
    assert time.monotonic() - started < 10.0


def test_the_timeout_of_a_call_is_one_for_all_its_steps(
    make_app: MakeApp, proxy: TcpProxy, vhost: Vhost
) -> None:
    app = make_app(broker=proxy.url_for())
    app.transport.open(timeout=10)
    proxy.blackhole()

    started = time.monotonic()
    with pytest.raises(PublishError):
        app.send_task("t", timeout=3.0)

    # Declaring the queue, setting up the reply queue and the publish would each have had three seconds of their own.
    assert time.monotonic() - started < 5.9


def test_a_call_without_confirm_tells_its_failure_in_get(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Exchange("events", ExchangeType.TOPIC)])

    result = app.send_task("t", exchange="events", routing_key="nobody", confirm=False)

    with pytest.raises(UnroutableError):
        result.get(5)


def test_bulk_results_are_in_call_order(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(add)
    run_worker(app)

    results = task.map_async((i, 1) for i in range(1000))

    assert results.get(20) == list(range(1, 1001))


def test_send_many_consumes_its_iterable_as_the_window_moves(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    app = make_app(task_publish_window=10, result_backend=None)
    seen: list[int] = []
    app.send_task("warm-up")

    def calls() -> Iterator[tuple[str, tuple[int]]]:
        for i in range(500):
            if i == 400:
                seen.append(raw_client.depth("default"))
            yield "t", (i,)

    app.send_many(calls())

    assert seen[0] > 100, "most of the first 400 are stored before the iterable is asked for the next"


def test_a_bulk_send_has_an_outcome_for_each_call(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(add)
    run_worker(app)
    lost: dict[str, Any] = {"exchange": "amq.topic", "routing_key": "nobody"}

    with pytest.raises(BulkSendError) as caught:
        app.send_many([(task, (1, 2)), (task, ("a", 2)), (task, (1, 2), {}, lost), (task, (3, 4))])

    error = caught.value
    assert [type(outcome).__name__ for outcome in error.outcomes] == [
        "NoneType",
        "InvalidArguments",
        "UnroutableError",
        "NoneType",
    ]
    assert (error.not_sent, error.send_unknown) == (2, 0)
    assert error.results[3].get(5) == 7


def test_an_error_in_the_iterable_is_raised_after_what_was_sent(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    app = make_app(result_backend=None)

    def calls() -> Iterator[tuple[str]]:
        yield ("t",)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        app.send_many(calls())

    assert raw_client.get("default").headers["task"] == "t"


def test_a_pipeline_sends_when_its_block_ends(make_app: MakeApp, run_worker: RunWorker) -> None:
    app = make_app()
    task = app.task(add)
    run_worker(app)

    with app.pipeline() as pipeline:
        first = pipeline.delay(task, 1, 2)
        pipeline.apply_async(task, (3, 4), priority=1)

    assert first.get(5) == 3
    assert pipeline.results.get(5) == [3, 7]


def test_a_pipeline_whose_block_raises_sends_nothing(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    task = app.task(add)
    app.topology_for(["default"])
    app.send_task("first")

    pipeline = app.pipeline()
    results: list[Any] = []

    def collect() -> None:
        with pipeline:
            results.append(pipeline.delay(task, 1, 2))
            raise LookupError

    with pytest.raises(LookupError):
        collect()

    assert raw_client.get("default").headers["task"] == "first"
    assert raw_client.depth("default") == 0
    with pytest.raises(NotSent):
        results[0].get(1)
    with pytest.raises(ClosedError):
        pipeline.delay(task, 1, 2)


def test_settings_changed_later_apply_to_the_next_call(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()
    app.send_task("t")

    app.conf.task_default_queue = "other"
    app.send_task("t")

    assert raw_client.get("other").headers["task"] == "t"
