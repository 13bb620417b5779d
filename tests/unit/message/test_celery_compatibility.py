"""Our messages beside stock Celery's own, made and read by Celery's code."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from celery import Celery
from celery.app.task import Context
from celery.backends.rpc import RPCBackend
from celery.exceptions import NotRegistered as CeleryNotRegistered
from celery.exceptions import SoftTimeLimitExceeded as CelerySoftTimeLimitExceeded
from celery.exceptions import TaskRevokedError as CeleryTaskRevokedError
from celery.exceptions import TimeLimitExceeded as CeleryTimeLimitExceeded
from celery.worker.request import Request
from kombu.message import Message

from amqp_tasks.errors import (
    MalformedMessage,
    NotRegistered,
    RemoteError,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from amqp_tasks.message import (
    OutgoingMessage,
    Properties,
    ResultRecord,
    State,
    TaskTemplate,
    build_result,
    exception_from_data,
    read_envelope,
    read_payload,
    read_result,
)

ACCEPT = ("json",)


@pytest.fixture
def celery_app() -> Celery:
    return Celery("stock", broker="memory://", backend="rpc://", set_as_current=False, result_extended=True)


class Published:
    """What Celery's producer hands to the channel: one AMQP message."""

    def __init__(self, app: Celery, send: Any) -> None:
        with app.connection_for_write() as connection, connection.channel() as channel:
            producer = app.amqp.Producer(channel, auto_declare=False)
            calls: list[tuple[Any, ...]] = []

            def _publish(*call: Any) -> None:
                calls.append(call)

            producer._publish = _publish
            send(producer)
        (call,) = calls
        self.body: bytes = call[0] if isinstance(call[0], bytes) else call[0].encode()
        self.priority, self.content_type, self.content_encoding = call[1:4]
        self.headers: dict[str, Any] = call[4]
        self.amqp: dict[str, Any] = call[5]

    def properties(self) -> Properties:
        return Properties(
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=self.headers,
            correlation_id=self.amqp.get("correlation_id"),
            reply_to=self.amqp.get("reply_to"),
            priority=self.priority,
            delivery_mode=self.amqp.get("delivery_mode", 2),
            expiration=self.amqp.get("expiration"),
        )


def published_by_celery(app: Celery, name: str, args: Any, kwargs: Any, **options: Any) -> Published:
    publish = {key: options.pop(key) for key in ("compression", "serializer", "headers") if key in options}
    message = app.amqp.as_task_v2("some-id", name, args, kwargs, reply_to="replies", **options)
    return Published(
        app,
        lambda producer: app.amqp.send_task_message(
            producer, name, message, exchange="", routing_key="default", declare=[], **publish
        ),
    )


def built(**options: Any) -> OutgoingMessage:
    template_options = {
        key: options.pop(key)
        for key in ("serializer", "compression", "ignore_result", "time_limit", "soft_time_limit")
        if key in options
    }
    template = TaskTemplate("pkg.add", **template_options)
    return template.build(
        task_id="some-id", exchange="", routing_key="default", reply_to="replies", **options
    )


def by_celery(message: OutgoingMessage) -> Message:
    """Our message as Celery's worker or client receives it."""
    sent = message.properties
    return Message(  # type: ignore[no-untyped-call]  # kombu ships no types
        body=message.body,
        content_type=sent.content_type,
        content_encoding=sent.content_encoding,
        headers=sent.all_headers(),
        properties={
            "correlation_id": sent.correlation_id,
            "reply_to": sent.reply_to,
            "priority": sent.priority,
        },
        delivery_info={"exchange": "", "routing_key": "default", "redelivered": False},
        accept={"application/json", "application/x-msgpack"},
        channel=mock.Mock(),
    )


CALLS: list[tuple[Any, Any, dict[str, Any], dict[str, Any]]] = [
    ((), {}, {}, {}),
    ((1, "张三"), {"x": [1, None, {"y": 2.5}]}, {}, {}),
    (([1, 2],), {}, {"ignore_result": True}, {"ignore_result": True}),
    ((1,), {}, {"time_limit": 30, "soft_time_limit": 20}, {"time_limit": 30, "soft_time_limit": 20}),
    ((1,), {}, {"shadow": "other", "parent_id": "p", "root_id": "r"}, {"shadow": "other", "parent_id": "p", "root_id": "r"}),
    ((1,), {}, {"headers": {"tenant": "x"}}, {"headers": {"tenant": "x"}}),
    ((1,), {}, {"compression": "zlib"}, {"compression": "zlib"}),
    ((1,), {}, {"retries": 3, "group_id": "g", "group_index": 2}, {"changes": {"retries": 3, "group": "g", "group_index": 2}}),
    ((Decimal("1.5"), datetime(2026, 1, 2, tzinfo=UTC)), {}, {}, {}),
    ((1,), {}, {"serializer": "msgpack"}, {"serializer": "msgpack"}),
]  # fmt: skip


@pytest.mark.parametrize(("args", "kwargs", "stock_options", "options"), CALLS)
def test_headers_properties_and_body_equal_celerys(
    celery_app: Celery, args: Any, kwargs: Any, stock_options: dict[str, Any], options: dict[str, Any]
) -> None:
    stock = published_by_celery(celery_app, "pkg.add", args, kwargs, **stock_options)
    ours = built(args=args, kwargs=kwargs, **options)

    assert ours.properties.all_headers() == stock.headers
    assert {key: type(value) for key, value in ours.properties.all_headers().items()} == {
        key: type(value) for key, value in stock.headers.items()
    }
    theirs = stock.properties()
    for name in (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "priority",
        "delivery_mode",
    ):
        assert getattr(ours.properties, name) == getattr(theirs, name), name
    if "serializer" in options:
        assert ours.body == stock.body
    elif "compression" in options:
        assert json.loads(zlib.decompress(ours.body)) == json.loads(zlib.decompress(stock.body))
    else:
        assert json.loads(ours.body) == json.loads(stock.body)


def test_expires_is_written_as_celery_writes_it(celery_app: Celery) -> None:
    at = datetime.now(UTC).replace(year=2090)
    stock = published_by_celery(celery_app, "pkg.add", (), {}, expires=at)

    ours = built(expires=at)

    assert ours.properties.all_headers()["expires"] == stock.headers["expires"] == at.isoformat()


def test_we_read_a_message_that_celery_sent(celery_app: Celery) -> None:
    at = datetime(2090, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    stock = published_by_celery(
        celery_app, "pkg.add", (1, b"x"), {"k": None}, expires=at, eta=at, time_limit=30, soft_time_limit=20,
        parent_id="p", group_id="g", group_index=4, retries=2, shadow="s", headers={"tenant": "x"}, compression="bzip2",
        chain=[{"task": "next"}],
    )  # fmt: skip

    envelope = read_envelope(stock.properties())
    payload = read_payload(envelope, stock.body, accept=ACCEPT)

    assert (envelope.id, envelope.task, envelope.retries, envelope.lang) == ("some-id", "pkg.add", 2, "py")
    assert (envelope.time_limit, envelope.soft_time_limit) == (30, 20)
    assert (envelope.eta, envelope.expires) == (at, at)
    assert (envelope.root_id, envelope.parent_id, envelope.group, envelope.group_index) == (
        "some-id",
        "p",
        "g",
        4,
    )
    assert (envelope.shadow, envelope.ignore_result, envelope.reply_to) == ("s", False, "replies")
    assert envelope.user_headers == {"tenant": "x"}
    assert (payload.args, payload.kwargs) == ([1, b"x"], {"k": None})
    assert payload.embed == {"callbacks": None, "errbacks": None, "chain": [{"task": "next"}], "chord": None}


def test_a_message_of_protocol_1_is_a_missing_header(celery_app: Celery) -> None:
    message = celery_app.amqp.as_task_v1("some-id", "pkg.add", (1,), {})
    stock = Published(
        celery_app,
        lambda producer: celery_app.amqp.send_task_message(
            producer, "pkg.add", message, exchange="", routing_key="default", declare=[]
        ),
    )

    with pytest.raises(MalformedMessage, match="protocol 1") as caught:
        read_envelope(stock.properties())

    assert caught.value.reason == "missing-header"


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"serializer": "msgpack"}])
def test_celerys_worker_reads_our_message(celery_app: Celery, options: dict[str, Any]) -> None:
    @celery_app.task(name="pkg.add")  # type: ignore[untyped-decorator]  # celery ships no types
    def add(x: int, y: int) -> int:
        return x + y

    message = by_celery(built(args=(1,), kwargs={"y": 2}, time_limit=9, headers={"tenant": "x"}, **options))
    request = Request(message, app=celery_app, decoded=False, task=add)
    args, kwargs, embed = request._payload

    assert (request.id, request.name, request.time_limits) == ("some-id", "pkg.add", [9, None])
    assert (list(args), kwargs) == ([1], {"y": 2})
    assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert (request.reply_to, request.correlation_id) == ("replies", "some-id")
    assert request.request_dict["tenant"] == "x"


def stock_result(app: Celery, result: Any, state: str, **options: Any) -> Published:
    backend: RPCBackend = app.backend
    request = Context(
        id="some-id", correlation_id="some-id", reply_to="replies", task="pkg.add", args=[1], kwargs={}, group="g",
        hostname="celery@host", retries=0, delivery_info={"routing_key": "default"}, children=[], parent_id="p",
    )  # fmt: skip
    meta = backend._to_result(
        "some-id", state, backend.encode_result(result, state), None, request, **options
    )
    return Published(
        app,
        lambda producer: producer.publish(
            meta, exchange="", routing_key="replies", correlation_id="some-id", serializer="json"
        ),
    )


def test_our_result_has_the_keys_of_celerys(celery_app: Celery) -> None:
    stock = stock_result(celery_app, {"sum": 5}, "SUCCESS")
    record = read_result(stock.properties(), stock.body, accept=ACCEPT)

    ours = build_result(record, reply_to="replies", persistent=False)

    assert json.loads(ours.body) == json.loads(stock.body)
    assert ours.properties.correlation_id == "some-id"
    assert (ours.exchange, ours.routing_key, ours.mandatory) == ("", "replies", True)
    assert (record.status, record.result, record.worker) == (State.SUCCESS, {"sum": 5}, "celery@host")
    assert record.date_done is not None
    assert record.date_done.utcoffset() is not None


@pytest.mark.parametrize("value", [None, 5, "张三", [1, {"a": b"\xff"}], datetime(2026, 1, 1, tzinfo=UTC)])
def test_celerys_client_reads_our_result(celery_app: Celery, value: object) -> None:
    record = ResultRecord(task_id="some-id", status=State.SUCCESS, result=value, date_done=datetime.now(UTC))

    meta = celery_app.backend.meta_from_decoded(by_celery(build_result(record, reply_to="q")).payload)

    assert (meta["task_id"], meta["status"], meta["result"], meta["children"]) == (
        "some-id",
        "SUCCESS",
        value,
        [],
    )


@pytest.mark.parametrize(
    ("exc", "seen"),
    [
        (ValueError("no", 5), ValueError("no", 5)),
        (KeyError("k"), KeyError("k")),
        (NotRegistered("pkg.gone"), CeleryNotRegistered("pkg.gone")),
        (TaskRevokedError("revoked"), CeleryTaskRevokedError("revoked")),
        (SoftTimeLimitExceeded(5), CelerySoftTimeLimitExceeded(5)),
        (TimeLimitExceeded(9), CeleryTimeLimitExceeded(9)),
    ],
)
def test_celerys_client_raises_our_failures(celery_app: Celery, exc: Exception, seen: Exception) -> None:
    record = ResultRecord(task_id="some-id", status=State.FAILURE, result=exc, traceback="Traceback: …")

    meta = celery_app.backend.meta_from_decoded(by_celery(build_result(record, reply_to="q")).payload)

    assert type(meta["result"]) is type(seen)
    assert meta["result"].args == seen.args
    assert meta["traceback"] == "Traceback: …"


@pytest.mark.parametrize(
    ("exc", "seen"),
    [
        (ValueError("no", 5), ValueError("no", 5)),
        (CeleryNotRegistered("pkg.gone"), NotRegistered("pkg.gone")),
        (CeleryTaskRevokedError("revoked"), TaskRevokedError("revoked")),
        (CelerySoftTimeLimitExceeded(), SoftTimeLimitExceeded()),
        (CeleryTimeLimitExceeded(9), TimeLimitExceeded(9)),
    ],
)
def test_we_raise_celerys_failures(celery_app: Celery, exc: Exception, seen: Exception) -> None:
    stock = stock_result(celery_app, exc, "FAILURE")

    read = exception_from_data(read_result(stock.properties(), stock.body, accept=ACCEPT).result)

    assert type(read) is type(seen)
    assert read.args == seen.args


def test_a_stock_workers_own_exception_class_is_a_remote_error(celery_app: Celery) -> None:
    class Boom(Exception):
        pass

    stock = stock_result(celery_app, Boom("x", 1), "FAILURE")

    read = exception_from_data(read_result(stock.properties(), stock.body, accept=ACCEPT).result)

    assert isinstance(read, RemoteError)
    assert read.exc_type.endswith("Boom")
    assert read.exc_args == ("x", 1)
