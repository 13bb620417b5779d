"""The broker's own ceiling: frames packed beforehand, written to a plain socket, nothing decoded but what counts.

python -m benchmarks.raw publish 20000      confirmed persistent publishes, window 1000
python -m benchmarks.raw consume 20000      deliveries, prefetch 256, cumulative acks
python -m benchmarks.raw both 20000         one connection publishes while another consumes
python -m benchmarks.raw latency 500        one confirmed publish to its delivery, one after the other
python -m benchmarks.raw confirm 500        one confirmed publish after the other: what `delay()` cannot be quicker than
python -m benchmarks.raw call 500           the same with a reply by one of four processes, on a classic queue: `delay().get()`
python -m benchmarks.raw loose-call 500     the same without confirms, of the call and of the reply
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import Process
from urllib.parse import unquote, urlsplit

from benchmarks.clients.workload import Measured, each_timed, main, timed

BODY = b'[[1, 1000000000], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
HEADER_BYTES = 700
"""About what a task message's header table takes on the wire."""
ANSWERING = 4
"""Processes that answer calls, as many as the workers of the other measures have."""
PREFETCH = 10
"""Of who answers one at a time: with 1, the next delivery would wait for the ack of the last one."""


def short_text(text: str) -> bytes:
    """An AMQP short string."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def long_text(raw: bytes) -> bytes:
    """An AMQP long string."""
    return struct.pack(">I", len(raw)) + raw


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One AMQP frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(class_id: int, method_id: int, arguments: bytes, channel: int = 1) -> bytes:
    """A method frame."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


class RawConnection:
    """A connection with one channel; reads frames, skips what is not asked for."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.write(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        login = (
            b"\0"
            + unquote(parts.username or "guest").encode()
            + b"\0"
            + unquote(parts.password or "guest").encode()
        )
        self.write(
            method(
                10, 11, struct.pack(">I", 0) + short_text("PLAIN") + long_text(login) + short_text("en_US"), 0
            )
        )
        self.expect(10, 30)
        self.write(method(10, 31, struct.pack(">HIH", 16, 131072, 0), 0))
        vhost = unquote(parts.path[1:]) or "/"
        self.write(method(10, 40, short_text(vhost) + short_text("") + b"\0", 0))
        self.expect(10, 41)
        self.write(method(20, 10, short_text("")))
        self.expect(20, 11)

    def write(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def frames(self) -> list[tuple[int, bytes]]:
        """All whole frames of one read: (kind, payload)."""
        data = self._socket.recv(262144)
        if not data:
            raise ConnectionError("the broker closed the connection")
        buffer = self._buffer + data
        found: list[tuple[int, bytes]] = []
        at = 0
        while len(buffer) - at >= 8:
            kind, _, size = struct.unpack_from(">BHI", buffer, at)
            end = at + 8 + size
            if len(buffer) < end:
                break
            found.append((kind, buffer[at + 7 : end - 1]))
            at = end
        self._buffer = buffer[at:]
        return found

    def expect(self, class_id: int, method_id: int) -> None:
        """Read until this method came."""
        wanted = struct.pack(">HH", class_id, method_id)
        while not any(kind == 1 and payload.startswith(wanted) for kind, payload in self.frames()):
            pass

    def declare(self, queue_name: str, queue_type: str) -> None:
        """Declare a durable queue."""
        table = short_text("x-queue-type") + b"S" + long_text(queue_type.encode())
        self.write(method(50, 10, b"\0\0" + short_text(queue_name) + b"\x02" + long_text(table)))
        self.expect(50, 11)

    def confirm(self) -> None:
        """Switch publisher confirms on."""
        self.write(method(85, 10, b"\0"))
        self.expect(85, 11)

    def consume(self, queue_name: str, prefetch: int) -> None:
        """Start consuming with manual acks."""
        self.write(method(60, 10, struct.pack(">IHB", 0, prefetch, 0)))
        self.expect(60, 11)
        self.write(
            method(60, 20, b"\0\0" + short_text(queue_name) + short_text("t") + b"\0" + struct.pack(">I", 0))
        )


def message(queue_name: str) -> bytes:
    """One persistent, mandatory message with headers of a usual size, all three frames."""
    table = short_text("h") + b"S" + long_text(b"x" * HEADER_BYTES)
    properties = struct.pack(">HHQH", 60, 0, len(BODY), 0x2000 | 0x1000) + long_text(table) + b"\x02"
    publish = method(60, 40, b"\0\0" + short_text("") + short_text(queue_name) + b"\x01")
    return publish + frame(2, 1, properties) + frame(3, 1, BODY)


def publish(connection: RawConnection, queue_name: str, count: int, window: int = 1000) -> None:
    """Publish with a window of unconfirmed messages."""
    packed, sent, confirmed = message(queue_name), 0, 0
    while confirmed < count:
        batch = min(window - (sent - confirmed), count - sent)
        if batch > 0:
            connection.write(packed * batch)
            sent += batch
        for kind, payload in connection.frames():
            if kind == 1 and payload.startswith(b"\x00\x3c\x00\x50"):
                tag, multiple = struct.unpack_from(">QB", payload, 4)
                confirmed = max(confirmed + 1, tag) if not multiple else tag


def deliveries(connection: RawConnection) -> list[int]:
    """The delivery tags of one read."""
    found: list[int] = []
    for kind, payload in connection.frames():
        if kind == 1 and payload.startswith(b"\x00\x3c\x00\x3c"):
            found.append(struct.unpack_from(">Q", payload, 5 + payload[4])[0])
    return found


def consume(connection: RawConnection, count: int) -> None:
    """Take so many deliveries; one cumulative ack for each read."""
    seen = 0
    while seen < count:
        tags = deliveries(connection)
        seen += len(tags)
        if tags:
            connection.write(method(60, 80, struct.pack(">QB", tags[-1], 1)))


def _opened(*, confirm: bool = False) -> RawConnection:
    connection = RawConnection(os.environ["BENCH_URL"])
    connection.declare(os.environ["BENCH_QUEUE"], os.environ["BENCH_QUEUE_TYPE"])
    if confirm:
        connection.confirm()
    return connection


def _publish(count: int) -> Measured:
    connection = _opened(confirm=True)
    return timed(count, lambda: publish(connection, os.environ["BENCH_QUEUE"], count))


def _consume(count: int) -> Measured:
    publish(_opened(confirm=True), os.environ["BENCH_QUEUE"], count)
    connection = _opened()

    def run() -> None:
        connection.consume(os.environ["BENCH_QUEUE"], 256)
        consume(connection, count)

    return timed(count, run)


def _both(count: int) -> Measured:
    sender, receiver = _opened(confirm=True), _opened()
    receiver.consume(os.environ["BENCH_QUEUE"], 256)
    feeding = threading.Thread(target=publish, args=(sender, os.environ["BENCH_QUEUE"], count))

    def run() -> None:
        feeding.start()
        consume(receiver, count)
        feeding.join()

    return timed(count, run)


def _latency(count: int) -> Measured:
    sender, receiver = _opened(confirm=True), _opened()
    queue_name = os.environ["BENCH_QUEUE"]
    receiver.consume(queue_name, PREFETCH)

    def once(_: int) -> None:
        publish(sender, queue_name, 1)
        consume(receiver, 1)

    return each_timed(count, once)


def _confirm(count: int) -> Measured:
    connection, queue_name = _opened(confirm=True), os.environ["BENCH_QUEUE"]
    return each_timed(count, lambda _: publish(connection, queue_name, 1))


def _sender(*, confirm: bool) -> Callable[[str], None]:
    """What sends one message; confirmed ones are waited for."""
    connection = _opened(confirm=confirm)
    return lambda name: publish(connection, name, 1) if confirm else connection.write(message(name))


def _answer(*, confirm: bool) -> None:
    """The other end of a call: a reply to each delivery, then its ack. Ends when it is killed."""
    receiver, send = _opened(), _sender(confirm=confirm)
    receiver.consume(os.environ["BENCH_QUEUE"], PREFETCH)
    while True:
        for delivery_tag in deliveries(receiver):
            send(os.environ["BENCH_QUEUE"] + ".reply")
            receiver.write(method(60, 80, struct.pack(">QB", delivery_tag, 0)))


def _call(count: int, *, confirm: bool) -> Measured:
    send, receiver = _sender(confirm=confirm), _opened()
    queue_name = os.environ["BENCH_QUEUE"]
    receiver.declare(queue_name + ".reply", "classic")
    receiver.consume(queue_name + ".reply", PREFETCH)
    answering = [Process(target=_answer, kwargs={"confirm": confirm}) for _ in range(ANSWERING)]
    for process in answering:
        process.start()

    def once(_: int) -> None:
        send(queue_name)
        consume(receiver, 1)

    try:
        return each_timed(count, once)
    finally:
        for process in answering:
            process.kill()
            process.join()


OPERATIONS: dict[str, Callable[[int], Measured]] = {
    "publish": _publish,
    "consume": _consume,
    "both": _both,
    "latency": _latency,
    "confirm": _confirm,
    "call": partial(_call, confirm=True),
    "loose-call": partial(_call, confirm=False),
}

if __name__ == "__main__":
    main(OPERATIONS, sys.argv)
