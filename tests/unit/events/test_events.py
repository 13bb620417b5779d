"""Events as messages, and what becomes of them when the broker refuses (P049, P192)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from amqp_routing import Topology
from amqp_tasks.errors import BrokerOperationError, MalformedMessage, NotSent, PublishError, UnroutableError
from amqp_tasks.events import Events, TaskEvent, _events
from amqp_tasks.events._event import binding_key, event_message, read_events
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import TopologyMode
from support.fake_deliveries import FakeClock

EVENT = TaskEvent(
    type="task-progress", task_id="a.b." + "x" * 250, hostname="worker@here", time=12.5, fields={"done": 3}
)


def test_an_event_is_what_was_told_and_reaches_those_bound_for_its_task() -> None:
    message = event_message(EVENT, {"pid": 7})

    (read,) = read_events(message.properties, message.body)
    assert read == replace(EVENT, fields={"done": 3, "pid": 7})
    assert message.routing_key == binding_key(EVENT.task_id).replace("*", "progress")
    assert len(message.routing_key) < 255
    assert (message.mandatory, message.properties.delivery_mode) == (False, 1)


def test_several_in_one_message_are_read_and_strangers_passed_over() -> None:
    message = event_message(EVENT, {})
    properties = message.properties

    both = b"[" + message.body + b"," + message.body + b', {"type": "worker-heartbeat"}, 7]'
    assert read_events(properties, both) == [EVENT, EVENT]
    with pytest.raises(MalformedMessage):
        read_events(properties, b"nothing")
    for time in (b"NaN", b"1" + b"0" * 400):
        with pytest.raises(MalformedMessage):
            read_events(properties, b'{"type": "task-progress", "uuid": "x", "timestamp": %s}' % time)


class _Broker:
    """Takes events, or answers with an error."""

    def __init__(self) -> None:
        self.published: list[OutgoingMessage] = []
        self.declared = 0
        self.modes: list[TopologyMode] = []
        self.refusal: Exception | None = None
        self.answer: PublishError | None = None

    def ensure_topology(self, topology: Topology, *, mode: TopologyMode, timeout: float) -> None:
        self.declared += 1
        self.modes.append(mode)
        if self.refusal is not None:
            raise self.refusal

    def publish_nowait(
        self, message: OutgoingMessage, report: Callable[[PublishError | None], None], *, timeout: float
    ) -> None:
        self.published.append(message)
        report(self.answer)


@pytest.fixture
def broker() -> _Broker:
    """A broker that takes all."""
    return _Broker()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that is moved."""
    return FakeClock()


@pytest.fixture
def events(broker: Any, clock: FakeClock) -> Events:
    """What is tested."""
    return Events(broker, TopologyMode.DECLARE, clock)


def _tell(events: Events) -> None:
    events.tell("task-progress", "t", "worker@here", done=1)


def test_nothing_is_asked_or_sent_for_tasks_that_told_nothing(events: Events, broker: _Broker) -> None:
    events.end("task-succeeded", "t", "worker@here")

    assert (broker.declared, broker.published, events.has_told("t")) == (0, [], False)


def test_the_exchange_is_asked_for_once_and_the_end_told_once(events: Events, broker: _Broker) -> None:
    for _ in range(3):
        _tell(events)
    for _ in range(2):
        events.end("task-succeeded", "t", "worker@here")

    assert broker.declared == 1
    assert len(broker.published) == 4


def test_without_the_exchange_it_is_asked_for_again_after_a_pause(
    events: Events, broker: _Broker, clock: FakeClock
) -> None:
    broker.refusal = BrokerOperationError("404 NOT_FOUND", reply_code=404)
    _tell(events)
    _tell(events)
    assert (broker.declared, broker.published) == (1, [])

    broker.refusal = None
    clock.seconds += 11
    _tell(events)

    assert (broker.declared, len(broker.published)) == (2, 1)


def test_nothing_is_sent_to_an_exchange_that_is_not_there_where_nothing_may_be_declared(
    broker: _Broker, clock: FakeClock
) -> None:
    transport: Any = broker
    events = Events(transport, TopologyMode.NONE, clock)
    broker.refusal = BrokerOperationError("no exchange", reply_code=404)

    events.tell_death("a", "worker@here", exception="E")

    assert (broker.modes, broker.published) == ([TopologyMode.CHECK], [])


def _refused(kind: type[PublishError], code: int) -> PublishError:
    error = kind("refused")
    error.__cause__ = BrokerOperationError("refused", reply_code=code)
    return error


def test_a_deleted_exchange_is_declared_again(events: Events, broker: _Broker, clock: FakeClock) -> None:
    broker.answer = _refused(UnroutableError, 404)
    _tell(events)
    broker.answer = None
    clock.seconds += 11

    _tell(events)

    assert (broker.declared, len(broker.published)) == (2, 2)


def test_who_may_not_write_there_does_not_try_again(
    events: Events, broker: _Broker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker.answer = _refused(NotSent, 403)
    _tell(events)
    clock.seconds += 10_000

    _tell(events)

    assert (broker.declared, len(broker.published)) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_a_lost_connection_takes_along_is_replaced_by_the_next(events: Events, broker: _Broker) -> None:
    broker.answer = NotSent("too late")
    _tell(events)
    _tell(events)

    assert (broker.declared, len(broker.published)) == (1, 2)


def test_what_is_remembered_is_bounded(events: Events) -> None:
    for number in range(10_001):
        events.tell("task-progress", f"{number}", "worker@here")

    assert not events.has_told("0")
    assert events.has_told("10000")


def test_several_threads_may_tell_at_the_bound(
    events: Events, broker: _Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_events, "_MAX_TOLD", 10)
    broker.refusal = BrokerOperationError(
        "403 ACCESS_REFUSED", reply_code=403
    )  # all that is done is to remember
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def tell(thread: int) -> None:
        for number in range(10_000):
            events.tell("task-progress", f"{thread}-{number}", "worker@here")

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(tell, range(8)))
    finally:
        sys.setswitchinterval(interval)
