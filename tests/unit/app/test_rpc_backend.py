"""The life of a reply queue: set up once, brought back when it was deleted, replaced when it cannot be consumed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from amqp_routing import QueueType, Topology
from amqp_tasks import App
from amqp_tasks.backends import rpc
from amqp_tasks.backends.rpc import RpcBackend, RpcOptions
from amqp_tasks.errors import (
    BrokerAuthenticationError,
    BrokerOperationError,
    BrokerUnreachable,
    ClosedError,
    ResultLost,
)
from amqp_tasks.transport import ConsumerEvent, ConsumerState, Transport
from support.eventually import eventually


class Broker:
    """The methods of a transport that the backend uses.

    `refusals` are raised by the next declarations, `failures` told of the next consumers before `consume` returns.
    """

    def __init__(self) -> None:
        self.declared: list[str] = []
        self.types: list[QueueType] = []
        self.consumed: list[str] = []
        self.closed = 0
        self.deleted: list[str] = []
        self.refusals: list[Exception] = []
        self.failures: list[Exception] = []
        self.on_event: Callable[[ConsumerEvent], None] = lambda event: None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def ensure_topology(self, topology: Topology, *, mode: object, timeout: float) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        self.declared += topology.queue_names
        self.types += [queue.type for queue in topology.queues]
        if self.refusals:
            raise self.refusals.pop(0)

    def consume(
        self, queue_names: Sequence[str], options: object, *, on_deliveries: object, on_event: object
    ) -> Broker:
        self.on_event = cast("Callable[[ConsumerEvent], None]", on_event)
        self.consumed += queue_names
        if self.failures:
            self.tell(ConsumerState.FAILED, self.failures.pop(0))
        return self

    def tell(self, state: ConsumerState, error: Exception | None = None) -> None:
        self.on_event(ConsumerEvent(state=state, epoch=1, error=error))

    def delete_queue(self, queue_name: str, *, timeout: float) -> None:
        self.deleted.append(queue_name)

    def close(self, *, timeout: float) -> None:
        self.closed += 1


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def backend(broker: Broker) -> Iterator[RpcBackend]:
    backend = RpcBackend(lambda: cast(Transport, broker), RpcOptions())
    yield backend
    backend.close(timeout=1)


def test_many_callers_set_it_up_once(broker: Broker, backend: RpcBackend) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = set(pool.map(lambda _: backend.reply_to(timeout=5), range(64)))

    assert broker.declared == [*names]


def test_a_caller_waits_no_longer_than_its_time_for_another_that_sets_it_up(
    broker: Broker, backend: RpcBackend
) -> None:
    broker.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(backend.reply_to, timeout=10)
        eventually(backend._lock.locked)

        with pytest.raises(BrokerUnreachable, match=r"within 0\.05 s"):
            backend.reply_to(timeout=0.05)

        broker.gate.set()
        assert first.result(10)


def test_a_deleted_queue_is_brought_back_under_its_name_however_long_the_broker_is_away(
    broker: Broker, backend: RpcBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = backend.reply_to(timeout=1)
    entry = backend.expect("a", reply_to=name)
    broker.refusals = [BrokerUnreachable("away"), BrokerUnreachable("still away")]
    monkeypatch.setattr(rpc, "_REDECLARE_PAUSE", 0.05)

    broker.tell(ConsumerState.CANCELLED)

    with pytest.raises(ResultLost):
        entry.wait(5)
    eventually(lambda: broker.declared == [name] * 4)
    assert backend.reply_to(timeout=1) == name


def _silence() -> BrokerUnreachable:
    error = BrokerUnreachable("no answer")
    error.is_silence = True
    return error


@pytest.mark.parametrize(
    "refusal", [BrokerOperationError("home node is down", reply_code=404), _silence()], ids=["3.10", "4.0"]
)
def test_a_queue_whose_cluster_node_is_down_is_replaced(
    broker: Broker, backend: RpcBackend, refusal: Exception
) -> None:
    name = backend.reply_to(timeout=1)
    entry = backend.expect("a", reply_to=name)
    broker.refusals = [refusal]

    broker.tell(ConsumerState.CANCELLED)

    with pytest.raises(ResultLost):
        entry.wait(5)
    eventually(lambda: len(broker.declared) == 3)
    assert backend.reply_to(timeout=1) == broker.declared[-1] != name


@pytest.mark.parametrize(
    ("addresses", "chosen", "expected"),
    [
        (1, None, QueueType.CLASSIC),
        (2, None, QueueType.QUORUM),
        (2, "classic", QueueType.CLASSIC),
        (1, "quorum", QueueType.QUORUM),
    ],
)
def test_it_is_replicated_where_there_are_several_addresses_unless_told_otherwise(
    broker: Broker, addresses: int, chosen: str | None, expected: QueueType
) -> None:
    settings: dict[str, Any] = {} if chosen is None else {"result_queue_type": chosen}
    urls = ";".join(f"amqp://127.0.0.1:{port}//" for port in range(1, addresses + 1))
    with App("replicated", broker=urls, **settings) as app:
        assert isinstance(app.backend, RpcBackend)
        backend = RpcBackend(lambda: cast(Transport, broker), app.backend._options)

        backend.reply_to(timeout=1)
        backend.close()

    assert broker.types == [expected]


@pytest.mark.parametrize(
    "refusal", [BrokerOperationError("no", reply_code=403), BrokerAuthenticationError("no")]
)
def test_a_queue_that_may_not_be_brought_back_is_logged_and_tried_again_by_the_next_call(
    broker: Broker, backend: RpcBackend, caplog: pytest.LogCaptureFixture, refusal: Exception
) -> None:
    name = backend.reply_to(timeout=1)
    broker.refusals = [refusal]

    broker.tell(ConsumerState.CANCELLED)

    eventually(lambda: "reply_queue_redeclare" in [getattr(r, "action", "") for r in caplog.records])
    assert backend.reply_to(timeout=1) == name


def test_a_consumer_that_failed_for_good_is_replaced_at_the_same_queue(
    broker: Broker, backend: RpcBackend, caplog: pytest.LogCaptureFixture
) -> None:
    name = backend.reply_to(timeout=1)
    entry = backend.expect("a", reply_to=name)
    cause = BrokerOperationError("no", reply_code=403)

    with caplog.at_level(logging.CRITICAL):
        broker.tell(ConsumerState.FAILED, cause)

    with pytest.raises(ResultLost) as caught:
        entry.wait(5)
    assert caught.value.__cause__ is cause
    assert backend.reply_to(timeout=1) == name
    assert broker.consumed == [name] * 2


def test_a_queue_that_cannot_be_consumed_is_deleted_at_the_end(
    broker: Broker, backend: RpcBackend, caplog: pytest.LogCaptureFixture
) -> None:
    name = backend.reply_to(timeout=1)
    with caplog.at_level(logging.CRITICAL):
        broker.tell(ConsumerState.FAILED, BrokerOperationError("no", reply_code=403))

    backend.close(timeout=1)

    assert broker.deleted == [name]


def test_a_consumer_that_failed_before_its_caller_had_noted_it_is_not_taken_for_one_that_lives(
    broker: Broker, backend: RpcBackend, caplog: pytest.LogCaptureFixture
) -> None:
    broker.failures = [BrokerOperationError("no", reply_code=403)]

    with caplog.at_level(logging.CRITICAL):
        name = backend.reply_to(timeout=1)
    with pytest.raises(ResultLost):
        backend.expect("a", reply_to=name).wait(5)

    assert backend.reply_to(timeout=1) == name
    assert backend.expect("b", reply_to=name).wait(0) is False
    assert (broker.consumed, broker.closed) == ([name] * 2, 1)


def test_a_queue_that_is_deleted_again_while_it_is_brought_back_is_declared_once_more(
    broker: Broker, backend: RpcBackend
) -> None:
    name = backend.reply_to(timeout=1)
    broker.gate.clear()
    broker.entered.clear()
    broker.tell(ConsumerState.CANCELLED)
    assert broker.entered.wait(10)

    broker.tell(ConsumerState.CANCELLED)
    broker.gate.set()

    assert backend.reply_to(timeout=5) == name
    assert broker.declared == [name] * 3


@pytest.mark.parametrize("state", [ConsumerState.CANCELLED, ConsumerState.FAILED])
def test_a_loss_between_asking_for_the_queue_and_expecting_is_told(
    broker: Broker, backend: RpcBackend, state: ConsumerState
) -> None:
    name = backend.reply_to(timeout=1)
    broker.gate.clear()
    broker.tell(state, BrokerOperationError("no", reply_code=403))

    entry = backend.expect("a", reply_to=name)

    with pytest.raises(ResultLost):
        entry.wait(5)
    broker.gate.set()


def test_closing_takes_no_longer_than_its_time_while_the_queue_is_set_up(
    broker: Broker, backend: RpcBackend
) -> None:
    broker.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(backend.reply_to, timeout=10)
        eventually(backend._lock.locked)

        pool.submit(backend.close, timeout=0.05).result(5)

        broker.gate.set()
        first.result(10)
    with pytest.raises(ClosedError):
        backend.expect("a", reply_to="").wait(1)


def test_closing_while_the_queue_is_away_ends_the_attempts(broker: Broker, backend: RpcBackend) -> None:
    name = backend.reply_to(timeout=1)
    broker.gate.clear()
    broker.tell(ConsumerState.CANCELLED)
    broker.refusals = [BrokerUnreachable("away")]
    eventually(backend._lock.locked)

    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(backend.close, timeout=1)
        broker.gate.set()
        closing.result(10)

    assert broker.deleted == [name]
    with pytest.raises(ClosedError):
        backend.reply_to(timeout=1)
    eventually(lambda: "amqp-tasks-reply-queue" not in [thread.name for thread in threading.enumerate()])


def test_attempts_that_end_at_once_are_a_pause_apart_which_closing_ends(
    broker: Broker, backend: RpcBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_REDECLARE_PAUSE", 600.0)
    name = backend.reply_to(timeout=1)
    broker.refusals = [BrokerUnreachable("nothing listens")] * 1_000_000

    broker.tell(ConsumerState.CANCELLED)

    eventually(lambda: len(broker.declared) > 1)
    backend.close(timeout=1)
    eventually(lambda: "amqp-tasks-reply-queue" not in [thread.name for thread in threading.enumerate()])
    assert broker.declared == [name] * 2
