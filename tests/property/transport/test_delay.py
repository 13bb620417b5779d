"""The timer wheel: digits, names, and the way of a message by the definition of its topology."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqp_routing import Binding, Queue, Topology, resolve
from amqp_tasks.transport._delay import DUE_EXCHANGE, MAX_SECONDS, STRAY_NAME, WheelEntry, wheel_entry

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
