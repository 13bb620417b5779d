"""What counts as a kept limit, and what does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.pacing import LATE, assert_paced

EVEN = [number * 0.25 for number in range(20)]


def late(*numbers: int, by: float = LATE * 0.9) -> list[float]:
    """Some of the first lines come later after their starts."""
    return [time + by * (number in numbers) for number, time in enumerate(EVEN)]


@pytest.mark.parametrize("times", [EVEN, late(5), late(5, 12), late(0), late(19), [0, 2, 2.1, 4]])
def test_first_lines_may_be_late_now_and_then(times: Sequence[float]) -> None:
    assert_paced(times, 1, 0.25)


@pytest.mark.parametrize(
    "times",
    [
        [time / 2 for time in EVEN],
        [time // 0.5 * 0.5 for time in EVEN],
        [*EVEN, 1.01, 1.02],
        [*EVEN, 6, 6, 6],
        [time * 0.8 for time in EVEN],
    ],
    ids=["twice as fast", "in pairs", "two too many", "a burst after a pause", "a little too fast"],
)
def test_a_limit_that_is_not_kept_is_seen(times: Sequence[float]) -> None:
    with pytest.raises(AssertionError, match="more than 1 starts"):
        assert_paced(times, 1, 0.25)


def test_several_in_a_window_are_counted_together() -> None:
    assert_paced([time // 0.5 * 0.5 for time in EVEN], 2, 0.5)
    with pytest.raises(AssertionError, match="more than 2 starts"):
        assert_paced([time // 0.75 * 0.5 for time in EVEN], 2, 0.5)


def test_so_many_may_come_too_early_and_no_more() -> None:
    assert_paced([*EVEN, 3.01, 3.02], 1, 0.25, early=2)
    with pytest.raises(AssertionError, match="more than 1 starts"):
        assert_paced([*EVEN, 3.01, 3.02, 3.03], 1, 0.25, early=1)


def test_too_few_starts_show_nothing() -> None:
    with pytest.raises(AssertionError, match="too few"):
        assert_paced([1.0], 1, 0.25)
