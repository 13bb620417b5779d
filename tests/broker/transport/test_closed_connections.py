"""Operations that the broker has not answered when it closes the connection, for whatever reason: they are asked again at once.

Where the end is ours, they fail at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from amqp_tasks.errors import BrokerUnreachable, ClosedError
from amqp_tasks.transport import ConsumerOptions, ConsumerState, QueueStatus
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from support import eventually
from support.scripted_broker import Fault, ScriptedBroker

Make = Callable[..., RabbitTransport]
End = Callable[[ScriptedBroker], None]

LIMIT = 300.0
"""Seconds that the operations may take: whoever waits so long hangs, and the test with him."""


def closing(code: int, text: str) -> End:
    return lambda broker: broker.close_connections(code, text)


ENDS: dict[str, End] = {
    "shutdown": closing(320, "CONNECTION_FORCED - broker forced connection closure"),
    "frame": closing(501, "FRAME_ERROR - type 2, all octets = <<>>: {frame_too_large}"),
    "syntax": closing(502, "SYNTAX_ERROR"),
    "unknown": closing(503, "COMMAND_INVALID - unknown exchange type 'x'"),
    "channel": closing(504, "CHANNEL_ERROR - second 'channel.open' seen"),
    "unexpected": closing(505, "UNEXPECTED_FRAME - expected content header"),
    "not-allowed": closing(530, "NOT_ALLOWED - vhost deleted"),
    "not-implemented": closing(540, "NOT_IMPLEMENTED"),
    "internal": closing(541, "INTERNAL_ERROR"),
    "reset": lambda broker: broker.reset_connections(),
}


class Asking:
    """A call of `queue_status` in a thread of its own, and what came of it."""

    def __init__(self, transport: RabbitTransport) -> None:
        self._transport = transport
        self.status: QueueStatus | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.status = self._transport.queue_status("work", timeout=LIMIT)
        except Exception as exc:
            self.error = exc

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive(), "it waits on"


def waits(broker: ScriptedBroker, method: str, count: int = 1) -> Callable[[], bool]:
    return lambda: broker.seen[method] >= count


@pytest.mark.parametrize("method", ["Channel.Open", "Queue.Declare"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_what_is_not_answered_when_the_connection_ends_is_asked_on_the_next_one(
    make_transport: Make, end: End, method: str
) -> None:
    with ScriptedBroker() as broker:
        broker.put("work", b"[[], {}, {}]")
        transport = make_transport(broker.url)
        transport.open(timeout=10)
        eventually(lambda: broker.seen["Confirm.Select"] == 1)
        opened = broker.seen["Channel.Open"]
        broker.misbehave(method, Fault.NEVER, times=1)

        asking = Asking(transport)
        eventually(waits(broker, method, (opened if method == "Channel.Open" else 0) + 1))
        end(broker)
        asking.join()

    assert asking.error is None
    assert asking.status is not None


def test_an_operation_whose_channel_lost_its_number_to_another_is_asked_again_as_well(
    make_transport: Make,
) -> None:
    with ScriptedBroker() as broker:
        broker.put("work")
        transport = make_transport(broker.url)
        transport.open(timeout=10)
        broker.misbehave("Queue.Declare", Fault.NEVER, times=1)
        asking = Asking(transport)
        eventually(waits(broker, "Queue.Declare"))

        core = transport._started()

        def open_it_again(_none: object) -> None:
            connection = core.link.connection
            assert isinstance(connection, FastConnection)
            connection.channel(max(connection._channels))

        core.loop.put(open_it_again)
        asking.join()

    assert asking.error is None
    assert asking.status is not None


def test_an_operation_that_is_under_way_when_the_io_thread_dies_fails_at_once(make_transport: Make) -> None:
    with ScriptedBroker() as broker:
        broker.put("work")
        transport = make_transport(broker.url)
        transport.open(timeout=10)
        broker.misbehave("Queue.Declare", Fault.NEVER, times=1)
        asking = Asking(transport)
        eventually(waits(broker, "Queue.Declare"))

        loop = transport._started().loop
        loop.put(lambda _none: loop.call_later(0, _fail))
        asking.join()

    assert isinstance(asking.error, BrokerUnreachable)


def _fail() -> None:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_an_operation_that_is_under_way_when_the_transport_is_closed_fails_at_once(
    make_transport: Make, says_goodbye: bool
) -> None:
    with ScriptedBroker() as broker:
        broker.put("work")
        transport = make_transport(broker.url)
        transport.open(timeout=10)
        broker.misbehave("Queue.Declare", Fault.NEVER, times=1)
        asking = Asking(transport)
        eventually(waits(broker, "Queue.Declare"))
        if not says_goodbye:
            broker.misbehave("Connection.Close", Fault.NEVER, times=1)

        transport.close(timeout=0.5)
        asking.join()

    assert isinstance(asking.error, ClosedError)


def _close(transport: RabbitTransport) -> None:
    transport.close()


def _let_thread_die(transport: RabbitTransport) -> None:
    core = transport._started()
    core.loop.put(lambda _none: core.loop.call_later(0, _fail))
    eventually(lambda: not core.thread.is_alive)


@pytest.mark.parametrize(("end", "error"), [(_close, ClosedError), (_let_thread_die, BrokerUnreachable)])
def test_an_operation_that_comes_in_when_the_io_thread_is_gone_fails_at_once(
    make_transport: Make,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[RabbitTransport], None],
    error: type[Exception],
) -> None:
    with ScriptedBroker() as broker:
        transport = make_transport(broker.url)
        transport.open(timeout=10)
        core = transport._started()
        end(transport)
        monkeypatch.setattr(transport, "_waiting_core", lambda: core)  # a thread that got it before the end

        asking = Asking(transport)
        asking.join()

    assert isinstance(asking.error, error)


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_a_consumer_without_rivals_warns_when_its_queue_is_refused(
    make_transport: Make, caplog: pytest.LogCaptureFixture, is_exclusive: bool
) -> None:
    # As when a queue goes between the look for it and basic.consume; of a join, whose rival has ended it, that is usual.
    states: list[ConsumerState] = []
    with ScriptedBroker() as broker:
        broker.put("work")
        broker.misbehave("Basic.Consume", Fault.CLOSE_CHANNEL, times=1, reply=(404, "NOT_FOUND"))
        consumer = make_transport(broker.url).consume(
            ["work"],
            ConsumerOptions(prefetch=1, exclusive=is_exclusive),
            on_deliveries=lambda _deliveries: None,
            on_event=lambda event: states.append(event.state),
        )
        eventually(lambda: _has(states, ConsumerState.CONSUMING))
        consumer.close(timeout=5)

    assert ConsumerState.LOST in states
    assert any(record.levelno >= logging.WARNING for record in caplog.records) is not is_exclusive


def _has(states: list[ConsumerState], state: ConsumerState) -> None:
    assert state in states
