"""Whether starts kept to a limit, by the times of their first lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

__all__ = ("assert_paced",)

LATE = 0.4
"""Seconds that a task may take from its start, which the limit is about, to its first line: on a busy machine, now and then."""
SLACK = 0.1
"""The same for most of them."""


def assert_paced(times: Iterable[float], count: int, seconds: float, *, early: int = 0) -> None:
    """Never more than `count` starts in any window of `seconds`.

    A first line that is late is nearer to the next one. So it is asked whether there is a start for each, at most `LATE` before its first line,
    with which the limit is kept; and whether three quarters of the windows are no shorter than that by more than `SLACK`.

    Args:
        times: of the first lines.
        count: the starts in a window.
        seconds: its length.
        early: so many starts may have come too early.

    Raises:
        AssertionError: the limit was not kept.
    """
    lines = sorted(times)
    assert len(lines) > count + early, "too few starts to see a limit"
    kept = (list(each) for each in combinations(lines, len(lines) - early))
    assert any(_is_kept(each, count, seconds) for each in kept), (
        f"more than {count} starts in {seconds} s: {[round(line - lines[0], 3) for line in lines]}"
    )


def _is_kept(lines: Sequence[float], count: int, seconds: float) -> bool:
    starts = list(lines)
    for number in reversed(range(len(lines) - count)):
        starts[number] = min(lines[number], starts[number + count] - seconds)
    windows = sorted(later - sooner for sooner, later in zip(lines, lines[count:], strict=False))
    is_possible = all(line - start <= LATE for start, line in zip(starts, lines, strict=True))
    return is_possible and windows[(len(windows) + 2) // 4] >= seconds - SLACK
