"""Named moments in an AMQP connection, and where in the bytes of one direction they are."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pika import spec

__all__ = ("POINTS", "FrameScanner", "Point")

_METHOD, _HEADER = 1, 2
_PREFACE = 8
"""Bytes of the protocol header that a client says first."""


class Edge(Enum):
    """Where at a method, with its content if it has one."""

    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment: at a method in one direction.

    Attributes:
        method: its class and method number, as in `spec.Basic.Ack.INDEX`.
        to_broker: said by the client.
        edge: where.
        has_content: the method is followed by a message.
    """

    method: int
    to_broker: bool
    edge: Edge
    has_content: bool = False


def _said_by_broker(method: int, edge: Edge = Edge.BEFORE, *, has_content: bool = False) -> Point:
    return Point(method=method, to_broker=False, edge=edge, has_content=has_content)


def _said_by_client(method: int, edge: Edge = Edge.BEFORE, *, has_content: bool = False) -> Point:
    return Point(method=method, to_broker=True, edge=edge, has_content=has_content)


POINTS: Mapping[str, Point] = {
    "during login": _said_by_broker(spec.Connection.Tune.INDEX),
    "during open": _said_by_broker(spec.Connection.OpenOk.INDEX),
    "during channel.open": _said_by_broker(spec.Channel.OpenOk.INDEX),
    "during confirm.select": _said_by_broker(spec.Confirm.SelectOk.INDEX),
    "during declare": _said_by_broker(spec.Queue.DeclareOk.INDEX),
    "during qos": _said_by_broker(spec.Basic.QosOk.INDEX),
    "during consume": _said_by_broker(spec.Basic.ConsumeOk.INDEX),
    "before the publish": _said_by_client(spec.Basic.Publish.INDEX),
    "within the publish": _said_by_client(spec.Basic.Publish.INDEX, Edge.WITHIN, has_content=True),
    "before the confirm": _said_by_broker(spec.Basic.Ack.INDEX),
    "within the confirm": _said_by_broker(spec.Basic.Ack.INDEX, Edge.WITHIN),
    "after the confirm": _said_by_broker(spec.Basic.Ack.INDEX, Edge.AFTER),
    "within the delivery": _said_by_broker(spec.Basic.Deliver.INDEX, Edge.WITHIN, has_content=True),
    "after the delivery": _said_by_broker(spec.Basic.Deliver.INDEX, Edge.AFTER, has_content=True),
    "before the ack": _said_by_client(spec.Basic.Ack.INDEX),
    "within the ack": _said_by_client(spec.Basic.Ack.INDEX, Edge.WITHIN),
    "after the ack": _said_by_client(spec.Basic.Ack.INDEX, Edge.AFTER),
}
"""What a cut of the connection can be about, by its name."""


class FrameScanner:
    """Reads one direction of one connection, and lets whole frames pass up to a point.

    Args:
        to_broker: which direction.
    """

    def __init__(self, *, to_broker: bool) -> None:
        self._to_broker = to_broker
        self._buffer = b""
        self._preface = _PREFACE if to_broker else 0
        self._content_of: int | None = None  # the channel whose content the point waits for the end of
        self._content_left = -1  # bytes of that, once its header has come

    def feed(self, data: bytes, point: Point | None) -> tuple[bytes, bool]:
        """What of all that was read may pass now, and whether the point is right after it."""
        self._buffer += data
        passed = [self._take(self._preface)] if self._preface else []
        self._preface -= len(b"".join(passed))
        wanted = point is not None and point.to_broker is self._to_broker
        while size := self._frame_size():
            frame = self._take(size)
            edge = self._edge_at(frame, point) if wanted and point is not None else None
            if edge is None or edge is Edge.AFTER:
                passed.append(frame)
            elif edge is Edge.WITHIN:
                passed.append(frame[: len(frame) // 2])
            if edge is not None:
                return b"".join(passed), True
        return b"".join(passed), False

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _frame_size(self) -> int:
        """Of the first frame in the buffer; 0 while it is not complete."""
        if len(self._buffer) < 7:
            return 0
        size = int(struct.unpack_from(">BHL", self._buffer)[2]) + 8
        return size if len(self._buffer) >= size else 0

    def _edge_at(self, frame: bytes, point: Point) -> Edge | None:
        """Whether the point is at this frame, and at which side of it."""
        kind, channel, _ = struct.unpack_from(">BHL", frame)
        if kind == _METHOD and struct.unpack_from(">L", frame, 7)[0] == point.method:
            if not point.has_content or point.edge is Edge.BEFORE:
                return point.edge
            self._content_of, self._content_left = channel, -1
            return None
        if self._content_of != channel or kind == _METHOD:
            return None
        self._content_left = (
            struct.unpack_from(">Q", frame, 11)[0]
            if kind == _HEADER
            else self._content_left - (len(frame) - 8)
        )
        if self._content_left and (kind == _HEADER or point.edge is Edge.AFTER):
            return None
        self._content_of = None
        return point.edge
