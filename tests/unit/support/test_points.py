"""Where in a stream of AMQP frames the named points are."""

from __future__ import annotations

import pytest
from pika import frame as frames
from pika import spec

from support.points import POINTS, FrameScanner

PREFACE = b"AMQP\x00\x00\x09\x01"
OPEN = frames.Method(0, spec.Connection.Open("/")).marshal()
PUBLISH = frames.Method(1, spec.Basic.Publish(0, "", "work")).marshal()
HEADER = frames.Header(1, 10, spec.BasicProperties(delivery_mode=2)).marshal()
BODIES = (frames.Body(1, b"0123456").marshal(), frames.Body(1, b"789").marshal())
OTHER = frames.Body(2, b"of another channel").marshal()
ACK = frames.Method(1, spec.Basic.Ack(7)).marshal()
DELIVER = frames.Method(1, spec.Basic.Deliver("tag", 1, False, "", "work")).marshal()
CONTENT = (HEADER, BODIES[0], OTHER, BODIES[1])


def passed(stream: bytes, name: str, *, chunk: int) -> tuple[bytes, bool]:
    """What passes of a stream that is read in chunks."""
    scanner = FrameScanner(to_broker=POINTS[name].to_broker)
    through, is_at_point = b"", False
    for start in range(0, len(stream), chunk):
        more, is_at_point = scanner.feed(stream[start : start + chunk], POINTS[name])
        through += more
        if is_at_point:
            break
    return through, is_at_point


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_a_point_is_where_its_name_says(chunk: int) -> None:
    said = b"".join((PREFACE, OPEN, ACK, PUBLISH, *CONTENT, OPEN))
    heard = b"".join((OPEN, DELIVER, *CONTENT, ACK, OPEN))
    to_body = b"".join((PREFACE, OPEN, ACK, PUBLISH, HEADER))
    delivered = b"".join((OPEN, DELIVER, *CONTENT))
    half = len(BODIES[0]) // 2

    assert passed(said, "before the ack", chunk=chunk) == (PREFACE + OPEN, True)
    assert passed(said, "within the ack", chunk=chunk) == (PREFACE + OPEN + ACK[: len(ACK) // 2], True)
    assert passed(said, "before the publish", chunk=chunk) == (PREFACE + OPEN + ACK, True)
    assert passed(said, "within the publish", chunk=chunk) == (to_body + BODIES[0][:half], True)
    assert passed(heard, "within the delivery", chunk=chunk) == (
        OPEN + DELIVER + HEADER + BODIES[0][:half],
        True,
    )
    assert passed(heard, "after the delivery", chunk=chunk) == (delivered, True)
    assert passed(heard, "before the confirm", chunk=chunk) == (delivered, True)
    assert passed(heard, "after the confirm", chunk=chunk) == (delivered + ACK, True)


def test_without_its_point_everything_passes() -> None:
    said = b"".join((PREFACE, OPEN, PUBLISH, *CONTENT))

    assert passed(said, "before the ack", chunk=3) == (said, False)
