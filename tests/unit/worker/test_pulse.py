"""Signs of life, as a supervisor sees them at each of its looks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from amqp_tasks.worker._pulse import Pulse, processor_seconds
from amqp_tasks.worker._records import RecordTable

LOOKS, PERIOD = 4, 0.5
ENOUGH = LOOKS * PERIOD
"""Processor seconds of a process that works without a pause."""


def _looks(pulse: Pulse, *signs: float) -> list[bool | None]:
    found: list[bool | None] = []
    for sign in signs:
        pulse.look(sign)
        found.append(pulse.is_hung(LOOKS, PERIOD))
    return found


def test_a_process_without_signs_that_uses_no_processor_hangs() -> None:
    pulse = Pulse(lambda: 1.0)

    assert _looks(pulse, *[7.0] * 5) == [False, False, False, False, True]


def test_waiting_for_the_interpreter_is_no_work() -> None:
    used = iter((1.0, 1.0 + 0.01 * ENOUGH))

    assert _looks(Pulse(lambda: next(used)), *[7.0] * 5)[-1] is True


def test_a_process_that_gives_a_sign_between_looks_does_not_hang() -> None:
    """As all do when their supervisor, or the whole machine, stood still: that is one look."""
    pulse = Pulse(lambda: 1.0)

    assert set(_looks(pulse, 7.0, 7.0, 7.0, 7.0, 8.0, 8.0, 8.0, 8.0, 9.0)) == {False}


def test_a_process_that_works_without_signs_does_not_hang_until_it_stops_working() -> None:
    def seconds() -> Iterator[float]:
        yield from (1.0, 1.0 + ENOUGH)
        while True:
            yield 9.0

    used = seconds()

    assert _looks(Pulse(lambda: next(used)), *[7.0] * 9) == [False] * 8 + [True]


def test_where_the_system_does_not_tell_what_a_process_uses_nothing_is_known_of_one_without_signs() -> None:
    assert _looks(Pulse(lambda: None), *[7.0] * 5)[-1] is None


def test_a_process_that_need_not_give_signs_does_not_hang() -> None:
    assert set(_looks(Pulse(lambda: 1.0), *[0.0] * 9)) == {False}


def test_processor_time_of_a_process_grows_with_its_work() -> None:
    before = processor_seconds(os.getpid())
    assert before is not None
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass

    after = processor_seconds(os.getpid())

    assert after is not None
    assert after - before == pytest.approx(0.1, abs=0.05)


def test_the_processor_time_of_a_process_that_is_not_there_is_not_known() -> None:
    assert processor_seconds(2**22 + 1) is None


def test_signs_of_one_process_are_not_those_of_another_and_a_reset_takes_them_back() -> None:
    table = RecordTable(processes=2, slots=3)
    first, second = table.of_process(0), table.of_process(1)
    second.mark(2, "x" * 300)

    first.give_sign(5.0)
    second.give_sign(6.0)

    assert (first.last_sign, second.last_sign, second.running()) == (5.0, 6.0, ("x" * 300,))
    first.reset()
    assert (first.last_sign, second.last_sign) == (0.0, 6.0)
