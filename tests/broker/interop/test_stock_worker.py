"""Our client's calls are run by a stock Celery worker, which declared the queue before we did."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import MaxRetriesExceededError, NotRegistered, RemoteError, TaskRevokedError
from stock.errors import OrderRefused
from stock.values import VALUES
from support import Ledger, RawClient, Vhost, WorkerProcess, eventually
from support.connected import connect
from support.interop_app import SETTINGS

pytestmark = pytest.mark.usefixtures("stock_worker")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_goes_there_and_back(our_client: App, value: Any) -> None:
    got = our_client.send_task("echo", (value,)).get(timeout=10)

    assert got == value
    assert type(got) is type(value)


def test_a_task_sees_its_request_as_if_celery_had_sent_it(our_client: App) -> None:
    result = our_client.send_task(
        "describe", (1, "ü"), task_id="order-43/ü", headers={"x-tenant": "acme"}, priority=3
    )

    assert result.get(timeout=10) == {
        "id": "order-43/ü",
        "root_id": "order-43/ü",
        "parent_id": None,
        "correlation_id": "order-43/ü",
        "retries": 0,
        "group": None,
        "own": "acme",
        "args": [1, "ü"],
        "priority": 3,
        "routing_key": "celery",
    }


def test_a_retried_task_is_waited_for_until_it_has_ended(our_client: App) -> None:
    assert our_client.send_task("insist", (3,)).get(timeout=10) == 3
    with pytest.raises(MaxRetriesExceededError, match="Can't retry"):
        our_client.send_task("insist", (3, 1)).get(timeout=10)


def test_a_builtin_exception_is_raised_as_itself(our_client: App) -> None:
    result = our_client.send_task("refuse", ("builtin",))

    with pytest.raises(ValueError, match="not like this") as caught:
        result.get(timeout=10)
    assert caught.value.args == ("not like this", 7)
    assert result.state == "FAILURE"
    assert "tasks.py" in (result.traceback or "")


def test_a_class_nobody_allowed_is_a_remote_error(our_client: App) -> None:
    for kind, name in (("shared", "OrderRefused"), ("unknown", "OnlyHere")):
        with pytest.raises(RemoteError, match=name) as caught:
            our_client.send_task("refuse", (kind,)).get(timeout=10)
        assert not isinstance(caught.value, OrderRefused)


@pytest.fixture(scope="module")
def trusting_client(vhost: Vhost) -> Iterator[App]:
    """A client that allows one class."""
    app = App("trusting", broker=vhost.url, **SETTINGS, result_exceptions=(OrderRefused,))
    connect(app)
    yield app
    app.close()


def test_an_allowed_class_is_rebuilt_with_its_arguments(trusting_client: App) -> None:
    with pytest.raises(OrderRefused) as caught:
        trusting_client.send_task("refuse", ("shared",)).get(timeout=10)

    assert (caught.value.number, caught.value.why) == (42, "sold out, ausverkauft ✗")


def test_a_task_the_worker_does_not_know_is_not_registered(our_client: App) -> None:
    result = our_client.send_task("no.such.task")

    with pytest.raises(NotRegistered, match=r"no\.such\.task"):
        result.get(timeout=10)


@pytest.mark.parametrize("method", ["gzip", "bzip2", "lzma"])
def test_a_compressed_call_is_read(our_client: App, method: str) -> None:
    value = "compress me " * 5000

    assert our_client.send_task("echo", (value,), compression=method).get(timeout=10) == value


def test_a_messagepack_call_is_read(our_client: App) -> None:
    value = {"a": [1, "ü", 2.5, None]}

    assert our_client.send_task("echo", (value,), serializer="msgpack").get(timeout=10) == value


def test_an_ignored_result_is_not_sent_and_the_task_runs(
    our_client: App, ledger: Ledger, raw_client: RawClient
) -> None:
    raw_client.declare("probe")

    our_client.send_task("echo", ("ignored",), ignore_result=True, reply_to="probe")
    wanted = our_client.send_task("echo", ("wanted",), reply_to="probe")

    ledger.wait_for("done", repr("ignored"))
    assert raw_client.get("probe").properties.correlation_id == wanted.id
    assert raw_client.get_nowait("probe") is None


def test_a_call_that_expires_before_its_turn_is_revoked(
    our_client: App, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = our_client.send_task("hold", (str(gate),))
    expires = datetime.now(UTC) + timedelta(seconds=0.5)
    late = our_client.send_task("echo", ("too late",), expires=expires)

    eventually(lambda: datetime.now(UTC) > expires, within=3)
    gate.touch()

    assert first.get(timeout=10) == "released"
    with pytest.raises(TaskRevokedError):
        late.get(timeout=10)
    assert repr("too late") not in ledger.keys("done")


def test_many_calls_in_flight_each_get_their_own_result(our_client: App) -> None:
    results = our_client.send_many([("echo", (number,)) for number in range(100)])

    assert [result.get(timeout=10) for result in results] == list(range(100))


def test_the_worker_complains_about_none_of_our_messages(
    our_client: App, stock_worker: WorkerProcess, vhost: Vhost
) -> None:
    assert our_client.send_task("echo", ("last",)).get(timeout=10) == "last"

    complaints = (
        r"unknown message|Can't decode|PreconditionFailed|Unrecoverable|UnicodeDecodeError|InvalidTaskError"
    )
    assert not re.search(complaints, stock_worker.output)
    # RabbitMQ 4 shows the type of a queue that was declared without one.
    assert vhost.queue("celery")["arguments"].keys() <= {"x-queue-type"}


def test_a_countdown_of_ours_is_kept_by_it(our_client: App) -> None:
    began = time.monotonic()

    got = our_client.send_task("echo", ("late",), countdown=1.3).get(timeout=15)

    assert got == "late"
    assert time.monotonic() - began >= 1.3 - 0.05
