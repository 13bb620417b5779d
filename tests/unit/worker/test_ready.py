"""The order of the ready buffer."""

from __future__ import annotations

from collections import Counter

import pytest

from amqp_tasks.worker._ready import ReadyBuffer


def test_higher_priority_comes_first_then_arrival() -> None:
    ready: ReadyBuffer[str] = ReadyBuffer()
    for name, priority in (("low", 0), ("high", 9), ("low too", 0), ("high too", 9)):
        ready.push(name, priority=priority, queue_name="q")

    assert ready.drain() == ["high", "high too", "low", "low too"]


def test_queues_take_turns_by_weight() -> None:
    ready: ReadyBuffer[str] = ReadyBuffer({"big": 3.0})
    for queue_name in ("small", "big"):
        for _ in range(40):
            ready.push(queue_name, priority=0, queue_name=queue_name)

    first = Counter(ready.pop() for _ in range(40))

    assert first == {"big": 30, "small": 10}


def test_a_queue_that_was_empty_saves_up_no_turns() -> None:
    ready: ReadyBuffer[str] = ReadyBuffer()
    for _ in range(10):
        ready.push("busy", priority=0, queue_name="busy")
    for _ in range(9):
        ready.pop()
    for name in ("busy", "fresh"):
        for _ in range(3):
            ready.push(name, priority=0, queue_name=name)

    assert Counter(ready.pop() for _ in range(5))["busy"] >= 2


def test_unwanted_items_go_and_the_order_of_the_others_stays() -> None:
    ready: ReadyBuffer[int] = ReadyBuffer()
    for number in range(6):
        ready.push(number, priority=number % 2, queue_name="q")

    ready.remove_if(lambda number: number in (1, 4))

    assert len(ready) == 4
    assert ready.drain() == [3, 5, 0, 2]


def test_popping_from_an_empty_buffer_is_an_error() -> None:
    with pytest.raises(IndexError):
        ReadyBuffer[int]().pop()
