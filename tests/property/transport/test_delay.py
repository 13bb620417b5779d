"""The timer wheel: digits, names, and the way of a message by the definition of its topology."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqp_routing import Binding, Queue, Topology, resolve
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport._delay import (
    DUE_EXCHANGE,
    MAX_SECONDS,
    STRAY_NAME,
    WheelEntry,
    enter_wheel,
    wheel_entry,
)
from amqp_tasks.worker._early import PLAUSIBLE_SKEW

NAMES = st.text(alphabet="ab.*#%25Eé ", min_size=1, max_size=12) | st.text(
    alphabet=".a", min_size=100, max_size=255
)
SECONDS = st.integers(1, MAX_SECONDS) | st.integers(1, 300)


def _whole_wheel() -> Topology:
    """Every queue there can be."""
    wheel = Topology()
    for digit in range(1, 16):
        seconds = int(f"{min(digit, 4):x}" + f"{digit:x}" * 5, 16)
        wheel = wheel.merged(wheel_entry(seconds, "", "q").topology())
    return wheel


WHEEL = _whole_wheel()


def _with_destinations(*entries: WheelEntry) -> Topology:
    return Topology(
        exchanges=WHEEL.exchanges,
        queues=(*WHEEL.queues, *(Queue(entry.due_queue) for entry in entries)),
        bindings=(
            *WHEEL.bindings,
            *(Binding(DUE_EXCHANGE, entry.due_queue, routing_key=entry.due_pattern) for entry in entries),
        ),
    )


def _travel(topology: Topology, entry: WheelEntry) -> tuple[float, str]:
    """Follow a message from queue to queue; how long it waited and where it ended."""
    exchange, waited = entry.exchange, 0.0
    while True:
        (name,) = resolve(topology, exchange, entry.routing_key)
        queue = topology.queue(name)
        assert queue is not None
        if queue.message_ttl is None:
            return waited, name
        waited += queue.message_ttl
        exchange = queue.dead_letter_exchange or ""


@given(seconds=SECONDS, name=NAMES, other=NAMES)
def test_a_message_waits_exactly_its_seconds_and_reaches_its_queue_alone(
    seconds: int, name: str, other: str
) -> None:
    entry, neighbour = wheel_entry(seconds, "", name), wheel_entry(seconds, "", other)
    topology = _with_destinations(*{name: entry, other: neighbour}.values())

    assert _travel(topology, entry) == (seconds, name)
    assert len(entry.routing_key.encode()) <= 255


@given(seconds=SECONDS, name=NAMES)
def test_a_message_whose_queue_is_gone_is_a_stray(seconds: int, name: str) -> None:
    assert _travel(WHEEL, wheel_entry(seconds, "", name)) == (seconds, STRAY_NAME)


@given(seconds=SECONDS, exchange=NAMES, key=NAMES, other_exchange=NAMES, other_key=NAMES)
def test_each_exchange_and_key_has_an_exit_of_its_own_that_restores_them(
    seconds: int, exchange: str, key: str, other_exchange: str, other_key: str
) -> None:
    entry = wheel_entry(seconds, exchange, key)
    own_exit = entry.exit_queue
    others = (wheel_entry(seconds, other_exchange, other_key), wheel_entry(seconds, "", exchange + key))

    assert own_exit is not None
    assert (own_exit.name, own_exit.message_ttl) == (entry.due_queue, 0.0)
    assert (own_exit.dead_letter_exchange, own_exit.dead_letter_routing_key) == (exchange, key)
    for other in others:
        assert (other.due_pattern == entry.due_pattern) == (other.target == entry.target)


@given(seconds=SECONDS)
def test_what_one_delay_declares_is_what_it_needs(seconds: int) -> None:
    entry = wheel_entry(seconds, "", "q")
    needed = entry.topology()
    waits = [queue.message_ttl for queue in needed.queues if queue.message_ttl is not None]

    assert sum(waits) == seconds
    assert _travel(needed, entry) == (seconds, STRAY_NAME)


@given(beyond=st.floats(-1.0, 20_000.0) | st.floats(0.0, 4e9))
def test_what_is_left_of_a_longer_way_is_not_taken_for_a_difference_of_clocks(beyond: float) -> None:
    delay = MAX_SECONDS + beyond
    properties = Properties(headers={"eta": "then"})
    message = OutgoingMessage(exchange="", routing_key="q", body=b"", properties=properties, delay=delay)

    entered = enter_wheel(message)

    assert entered is not None
    left = delay - sum(queue.message_ttl or 0.0 for queue in entered[1].topology().queues)
    assert 0 <= left < 1 or left > 1.5 * PLAUSIBLE_SKEW


@given(seconds=SECONDS)
def test_messages_of_high_priority_wait_in_queues_of_their_own(seconds: int) -> None:
    normal, high = wheel_entry(seconds, "", "q"), wheel_entry(seconds, "", "q", is_high=True)
    needed = high.topology()
    shared = {queue.name for queue in needed.queues} & {queue.name for queue in normal.topology().queues}

    assert shared == {STRAY_NAME}
    assert _travel(needed, high) == (seconds, STRAY_NAME)
    assert (high.due_queue, high.due_pattern) == (normal.due_queue, normal.due_pattern)
