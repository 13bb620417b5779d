"""When a silent connection is given up, on a clock of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from amqp_tasks.transport.rabbitmq._fastwire import _Heartbeat

INTERVAL = 10.0


class SilentConnection:
    """What the heartbeat checker asks of a connection; time passes by its timers alone."""

    def __init__(self) -> None:
        self.bytes_received = self.bytes_sent = 0
        self.now = 0.0
        self.ended_at: float | None = None
        self._serials = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def _adapter_call_later(self, delay: float, callback: Callable[[], None]) -> int:
        serial = next(self._serials)
        self._timers.append((self.now + delay, serial, callback))
        return serial

    def _send_frame(self, frame: object) -> None:
        self.bytes_sent += 8

    def _terminate_stream(self, error: Exception) -> None:
        self.ended_at = self.now

    def run(self, until: float) -> None:
        """Call what is due by then."""
        while self.ended_at is None and self._timers and min(self._timers)[0] <= until:
            timer = min(self._timers)
            self._timers.remove(timer)
            self.now = timer[0]
            timer[2]()
        self.now = max(self.now, until)


@pytest.mark.parametrize("last_byte", [0.0, 0.1, 2.5, 4.9, 5.0, 5.1])
def test_promise_12_silence_is_noticed_within_two_intervals(last_byte: float) -> None:
    connection = SilentConnection()
    _Heartbeat(connection, INTERVAL)
    connection.run(until=last_byte)
    connection.bytes_received += 8

    connection.run(until=100.0)

    assert connection.ended_at is not None
    assert 1.5 * INTERVAL <= connection.ended_at - last_byte <= 2 * INTERVAL


def test_a_connection_with_heartbeats_lives() -> None:
    connection = SilentConnection()
    _Heartbeat(connection, INTERVAL)

    for beat in range(20):
        connection.run(until=beat * INTERVAL)
        connection.bytes_received += 8

    assert connection.ended_at is None
