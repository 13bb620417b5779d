"""When a process is said to grow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.memory import SHORTEST, MemoryWatch


def watched(size: Callable[[float], float], seconds: float = SHORTEST) -> MemoryWatch:
    """A process of that size, every other second for so long."""
    watch = MemoryWatch()
    watch.samples[1] = [(1000.0 + at, size(at)) for at in range(0, int(seconds) + 2, 2)]
    return watch


def is_said_to_grow(watch: MemoryWatch) -> bool:
    return watch.growth(at_least=SHORTEST)[1].is_too_much


def test_caches_that_fill_in_the_first_minute_are_no_growth() -> None:
    assert not is_said_to_grow(watched(lambda at: 20 + min(at, 60.0) / 10))


def test_what_a_process_varies_by_is_no_growth_however_short_the_run() -> None:
    assert not is_said_to_grow(watched(lambda at: 20 + (0.3 if at > 90 else 0.0)))


@pytest.mark.parametrize("seconds", [SHORTEST, 600.0])
def test_a_steady_leak_is_growth(seconds: float) -> None:
    assert is_said_to_grow(watched(lambda at: 20 + at / 60, seconds))
    assert not is_said_to_grow(watched(lambda at: 20 + at / 600, seconds))


def test_a_process_that_did_not_live_long_enough_is_not_judged() -> None:
    assert not watched(lambda at: at, seconds=SHORTEST / 2).growth(at_least=SHORTEST * 0.8)
