"""A stock Celery client is served by our worker, which declared the queue before the client did."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stock.values import VALUES
from support import Ledger, RawClient, Vhost, eventually
from support.stock_client import StockClient

pytestmark = pytest.mark.usefixtures("our_worker")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_goes_there_and_back(stock_client: StockClient, value: Any) -> None:
    answer = stock_client.call("echo", value)

    assert (answer.state, answer.value) == ("SUCCESS", value), answer.error
    assert type(answer.value) is type(value)


def test_the_client_runs_no_code_of_ours(stock_client: StockClient) -> None:
    assert stock_client.call("echo", 1).loaded.isdisjoint({"amqp_tasks", "amqp_routing", "pika"})


def test_keyword_arguments_arrive(stock_client: StockClient) -> None:
    assert stock_client.call("echo", kwargs={"value": "by name"}).value == "by name"


def test_a_task_sees_its_request_as_under_celery(stock_client: StockClient) -> None:
    answer = stock_client.call(
        "describe", 1, "ü", task_id="order-42/ü", headers={"x-tenant": "acme"}, priority=3
    )

    assert answer.task_id == "order-42/ü"
    assert answer.value == {
        "id": "order-42/ü",
        "root_id": "order-42/ü",
        "parent_id": None,
        "correlation_id": "order-42/ü",
        "retries": 0,
        "group": None,
        "own": "acme",
        "args": [1, "ü"],
        "priority": 3,
        "routing_key": "celery",
    }


def test_a_builtin_exception_is_raised_as_itself(stock_client: StockClient) -> None:
    answer = stock_client.call("refuse", "builtin")

    assert (answer.state, answer.classes[0]) == ("FAILURE", "builtins.ValueError")
    assert answer.args == ("not like this", 7)
    assert "tasks.py" in answer.traceback
    assert "ValueError" in answer.traceback


def test_a_class_that_the_client_has_imported_is_rebuilt_with_its_arguments(
    stock_client: StockClient,
) -> None:
    answer = stock_client.call("refuse", "shared")

    assert answer.classes[0] == "stock.errors.OrderRefused"
    assert answer.args == (42, "sold out, ausverkauft ✗")


def test_a_class_that_the_client_cannot_know_keeps_name_and_arguments(stock_client: StockClient) -> None:
    answer = stock_client.call("refuse", "unknown")

    assert answer.state == "FAILURE"
    assert answer.classes[0].endswith("OnlyHere")
    assert answer.args == ("only here", 1)


def test_the_client_sees_each_retry_and_then_the_result(stock_client: StockClient) -> None:
    answer = stock_client.call("insist", 3)

    assert (answer.state, answer.value) == ("SUCCESS", 3), answer.error
    assert answer.states == ("RETRY", "RETRY", "RETRY", "SUCCESS")


def test_a_task_retried_too_often_is_raised_as_celerys_own_error(stock_client: StockClient) -> None:
    answer = stock_client.call("insist", 3, 1)

    assert (answer.state, answer.classes[0]) == ("FAILURE", "celery.exceptions.MaxRetriesExceededError")


def test_an_unknown_task_is_not_registered_at_the_client(stock_client: StockClient) -> None:
    known = stock_client.call("only_the_client_knows_it")
    unknown = stock_client.call("no.such.task")

    for answer in (known, unknown):
        assert answer.state == "FAILURE"
        assert answer.classes[0] == "celery.exceptions.NotRegistered"
    assert "no.such.task" in unknown.error


def test_wrong_arguments_are_a_type_error_at_the_client(stock_client: StockClient) -> None:
    answer = stock_client.call("hold", "x", "too many", by_name=True)

    assert answer.state == "FAILURE"
    assert "builtins.TypeError" in answer.classes, answer


@pytest.mark.parametrize("method", ["zlib", "gzip", "bzip2", "lzma"])
def test_a_compressed_call_is_read(stock_client: StockClient, method: str) -> None:
    value = "compress me " * 5000

    assert stock_client.call("echo", value, compression=method).value == value


@pytest.mark.parametrize("value", [None, {"a": [1, "ü", b"\xff", 2.5]}], ids=repr)
def test_a_messagepack_call_is_read(stock_client: StockClient, value: Any) -> None:
    assert stock_client.call("echo", value, serializer="msgpack").value == value


def test_pickle_is_refused_without_being_read(stock_client: StockClient) -> None:
    answer = stock_client.call("echo", {1, 2}, serializer="pickle")

    assert answer.state == "FAILURE"
    assert "content-type-refused" in answer.error


def test_an_ignored_result_is_not_sent_and_the_task_runs(
    stock_client: StockClient, ledger: Ledger, raw_client: RawClient
) -> None:
    raw_client.declare("probe")

    stock_client.send("echo", "ignored", ignore_result=True, reply_to="probe")
    wanted = stock_client.send("echo", "wanted", reply_to="probe")

    ledger.wait_for("done", repr("ignored"))
    assert raw_client.get("probe").properties.correlation_id == wanted
    assert raw_client.get_nowait("probe") is None


def test_a_call_that_expires_before_its_turn_is_revoked_at_the_client(
    stock_client: StockClient, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = stock_client.send("hold", str(gate))
    expires = datetime.now(UTC) + timedelta(seconds=0.5)
    late = stock_client.send("echo", "too late", expires=expires)

    eventually(lambda: datetime.now(UTC) > expires, within=3)
    gate.touch()
    answer = stock_client.get(late)

    assert stock_client.get(first).value == "released"
    assert (answer.state, answer.classes[0]) == ("REVOKED", "celery.exceptions.TaskRevokedError")
    assert repr("too late") not in ledger.keys("done")


def test_many_calls_in_flight_each_get_their_own_result(stock_client: StockClient) -> None:
    sent = {stock_client.send("echo", number): number for number in range(100)}

    assert {task_id: stock_client.get(task_id).value for task_id in sent} == sent


def test_the_client_that_declares_the_queue_again_meets_no_clash(
    stock_client: StockClient, vhost: Vhost, raw_client: RawClient
) -> None:
    stock_client.call("echo", 1)

    queue = vhost.queue("celery")
    raw_client.declare("celery")  # as stock Celery does: durable, without arguments
    assert (queue["durable"], queue["arguments"].get("x-queue-type", "classic")) == (True, "classic")
    assert queue["arguments"].keys() <= {"x-queue-type"}


def test_a_countdown_of_the_client_is_kept(stock_client: StockClient) -> None:
    began = time.monotonic()

    answer = stock_client.call("echo", "late", countdown=2.4, timeout=15.0)

    assert (answer.state, answer.value) == ("SUCCESS", "late"), answer.error
    assert time.monotonic() - began >= 2.4 - 0.05


def test_a_countdown_of_the_client_waits_in_the_broker(
    stock_client: StockClient, raw_client: RawClient
) -> None:
    stock_client.send("echo", "much later", countdown=0xF00)

    # The worker has sent it into the wheel: a few seconds less than 0xF00 begin with the digit e.
    eventually(lambda: raw_client.depth("amqp_tasks.delay.2.e") == 1, within=15)
    assert b"much later" in raw_client.get("amqp_tasks.delay.2.e").body
