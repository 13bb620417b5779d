"""A TCP proxy that misbehaves when told to."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from support.points import FrameScanner, Point

__all__ = ("TcpProxy",)

CHUNK = 65536
MAX_PENDING = 4 * CHUNK


@dataclass(slots=True, eq=False)
class _Flow:
    """One direction of one connection; the proxy's thread owns it."""

    source: socket.socket
    target: socket.socket
    to_broker: bool
    scanner: FrameScanner | None = None
    due: list[tuple[float, int, bytes]] = field(default_factory=list)
    pending: int = 0
    ended: bool = False
    is_at_point: bool = False  # nothing passes after what is due


class TcpProxy:
    """Forwards connections to a broker from a port of its own.

    All forwarding is done by one thread; the methods are safe from any thread and return when they have taken
    effect. What is on its way is bounded: a stalled reader stops the writer, as TCP does.

    Args:
        target_url: the broker.
        knows_frames: what passes is AMQP, so that `cut_at` can be used; bytes pass as whole frames.
    """

    def __init__(self, target_url: str, *, knows_frames: bool = False) -> None:
        self._knows_frames = knows_frames
        self._point: Point | None = None
        self.was_at_point = threading.Event()
        """Set when a connection that had come to the point of `cut_at` was reset, whatever reset it."""
        parts = urlsplit(target_url)
        assert parts.hostname, f"no host in {target_url!r}"
        self._target = (parts.hostname, parts.port or 5672)
        self._target_url = parts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._tickets = itertools.count()
        self._flows: dict[socket.socket, _Flow] = {}
        self._calls: list[tuple[Callable[[], None], threading.Event]] = []
        self._lock = threading.Lock()
        self._delay = 0.0
        self._rate: float | None = None
        self._next_write = 0.0
        self._swallow_to_broker = self._swallow_to_client = self._refuse = self._is_closed = False
        self._cut_after: tuple[bool, int] | None = None
        self.accepted = self.bytes_to_broker = self.bytes_to_client = 0
        for each in (self._listener, self._wake_read):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)
        self._thread.start()

    # -- what tests use

    def url_for(self, url: str | None = None) -> str:
        """`url` (default: the target's) with this proxy's address in place of the broker's."""
        parts = urlsplit(url) if url is not None else self._target_url
        credentials = parts.netloc.rpartition("@")[0]
        address = f"127.0.0.1:{self.port}"
        return parts._replace(netloc=f"{credentials}@{address}" if credentials else address).geturl()

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._flows) // 2

    def cut(self) -> None:
        """Reset all connections at once; new ones are served."""
        self._call(self._drop_all)

    def refuse(self) -> None:
        """Reset all connections and each new one right after it was accepted."""

        def act() -> None:
            self._refuse = True
            self._drop_all()

        self._call(act)

    def blackhole(self) -> None:
        """Swallow all bytes of both directions; connections stay open, new ones too."""
        self._set_swallow(to_broker=True, to_client=True)

    def half_open(self, *, to_client: bool = True) -> None:
        """Swallow one direction only: by default what the broker says, so that requests arrive and confirms do not."""
        self._set_swallow(to_broker=not to_client, to_client=to_client)

    def abandon(self) -> None:
        """Never look again at the connections that are open now, not even when an end is closed; new ones are served."""

        def act() -> None:
            for flow in self._flows.values():
                flow.due.clear()
                with contextlib.suppress(KeyError):
                    self._selector.unregister(flow.source)

        self._call(act)

    def delay(self, seconds: float) -> None:
        """From now on hold each byte for so long in each direction; order is kept."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limit what all flows write together; None for no limit."""
        self._call(lambda: setattr(self, "_rate", bytes_per_second))

    def cut_after(self, count: int, *, to_broker: bool = True) -> None:
        """Reset all connections once `count` more bytes were forwarded in that direction, within a frame if it falls so."""
        self._call(lambda: setattr(self, "_cut_after", (to_broker, count)))

    def cut_at(self, point: Point) -> None:
        """Reset all connections when one of them comes to `point` for the first time from now on.

        Nothing beyond the point reaches the other side. Needs `knows_frames`.
        """
        assert self._knows_frames

        def act() -> None:
            self.was_at_point.clear()
            self._point = point

        self._call(act)

    def resume(self) -> None:
        """Forward again as usual. Bytes that were swallowed stay lost: cut such connections first."""

        def act() -> None:
            self._swallow_to_broker = self._swallow_to_client = self._refuse = False
            self._delay, self._rate, self._cut_after, self._point = 0.0, None, None, None

        self._call(act)

    def close(self) -> None:
        """Close everything and end the thread; idempotent."""
        if self._is_closed:
            return
        self._call(lambda: setattr(self, "_is_closed", True))
        self._thread.join(5)
        assert not self._thread.is_alive(), "the proxy's thread did not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread

    def _set_swallow(self, *, to_broker: bool, to_client: bool) -> None:
        def act() -> None:
            self._swallow_to_broker, self._swallow_to_client = to_broker, to_client

        self._call(act)

    def _call(self, act: Callable[[], None]) -> None:
        done = threading.Event()
        with self._lock:
            self._calls.append((act, done))
        self._wake_write.send(b"!")
        assert done.wait(5), "the proxy's thread hangs"

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(self._time_to_next()):
                self._on_ready(key.fileobj)
            self._write_due()
        self._drop_all()
        for each in (self._listener, self._wake_read, self._wake_write):
            each.close()
        self._selector.close()

    def _on_ready(self, ready: object) -> None:
        if ready is self._listener:
            self._accept()
        elif ready is self._wake_read:
            self._take_calls()
        elif isinstance(ready, socket.socket) and ready in self._flows:
            self._read(self._flows[ready])

    def _take_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(CHUNK)
        with self._lock:
            calls, self._calls = self._calls, []
        for act, done in calls:
            act()
            done.set()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        if self._refuse:
            _reset(client)
            return
        try:
            broker = socket.create_connection(self._target, 5)
        except OSError:
            _reset(client)
            return
        for source, target, to_broker in ((client, broker, True), (broker, client, False)):
            # Short writes are the kernel's business here: a send waits for its peer at most so long.
            source.settimeout(5)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            scanner = FrameScanner(to_broker=to_broker) if self._knows_frames else None
            self._flows[source] = _Flow(source, target, to_broker, scanner)
            self._selector.register(source, selectors.EVENT_READ)

    def _read(self, flow: _Flow) -> None:
        try:
            data = flow.source.recv(CHUNK)
        except OSError:
            self._drop(flow)
            return
        swallow = self._swallow_to_broker if flow.to_broker else self._swallow_to_client
        if not data:
            self._selector.unregister(flow.source)
            flow.ended = True
            if swallow or not flow.due:
                self._drop(flow)
        elif not swallow:
            self._queue(flow, self._scan(flow, data))

    def _queue(self, flow: _Flow, data: bytes) -> None:
        heapq.heappush(flow.due, (time.monotonic() + self._delay, next(self._tickets), data))
        flow.pending += len(data)
        if flow.is_at_point or flow.pending >= MAX_PENDING:
            self._selector.unregister(flow.source)

    def _scan(self, flow: _Flow, data: bytes) -> bytes:
        """What of it passes: whole frames, up to the point if one is set."""
        if flow.scanner is None:
            return data
        data, flow.is_at_point = flow.scanner.feed(data, self._point)
        if flow.is_at_point:
            self._point = None
        return data

    def _write_due(self) -> None:
        now = time.monotonic()
        for flow in list(self._flows.values()):
            while flow.due and flow.due[0][0] <= now and (self._rate is None or self._next_write <= now):
                self._write(flow, now)
            if flow.is_at_point and not flow.due:
                self._drop_all()
                return
            if flow.ended and not flow.due and flow.source in self._flows:
                self._drop(flow)

    def _write(self, flow: _Flow, now: float) -> None:
        at, ticket, data = heapq.heappop(flow.due)
        size = len(data) if self._rate is None else max(1, min(len(data), int(self._rate / 20)))
        size, cut_now = self._apply_cut(flow, size)
        piece, rest = data[:size], data[size:]
        if rest:
            heapq.heappush(flow.due, (at, ticket, rest))
        if self._rate is not None:
            self._next_write = now + len(piece) / self._rate
        if self._send(flow, piece) and cut_now:
            self._cut_after = None
            self._drop_all()

    def _apply_cut(self, flow: _Flow, size: int) -> tuple[int, bool]:
        if self._cut_after is None or self._cut_after[0] != flow.to_broker:
            return size, False
        left = self._cut_after[1]
        self._cut_after = (flow.to_broker, max(0, left - size))
        return min(size, left), left <= size

    def _send(self, flow: _Flow, piece: bytes) -> bool:
        was_full = flow.pending >= MAX_PENDING
        try:
            flow.target.sendall(piece)
        except OSError:
            self._drop(flow)
            return False
        flow.pending -= len(piece)
        if flow.to_broker:
            self.bytes_to_broker += len(piece)
        else:
            self.bytes_to_client += len(piece)
        if was_full and flow.pending < MAX_PENDING and not flow.ended and not flow.is_at_point:
            self._selector.register(flow.source, selectors.EVENT_READ)
        return True

    def _time_to_next(self) -> float | None:
        waits = [flow.due[0][0] for flow in self._flows.values() if flow.due]
        if not waits:
            return None
        return max(0.0, max(min(waits), self._next_write) - time.monotonic())

    def _drop(self, flow: _Flow) -> None:
        for each in (flow.source, flow.target):
            self._forget(each)
            each.close()

    def _drop_all(self) -> None:
        for each in list(self._flows):
            self._forget(each)
            _reset(each)

    def _forget(self, which: socket.socket) -> None:
        flow = self._flows.pop(which, None)
        if flow is not None:
            flow.due.clear()
            if flow.is_at_point:
                self.was_at_point.set()
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(which)


def _reset(which: socket.socket) -> None:
    """Close with a reset rather than an orderly end."""
    with contextlib.suppress(OSError):
        which.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    which.close()
