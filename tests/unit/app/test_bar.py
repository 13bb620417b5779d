"""How progress is drawn (P049)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from amqp_tasks.app._bar import Bar
from amqp_tasks.app._progress import PROGRESS, showing
from amqp_tasks.message import ResultRecord


class _Result:
    """A result that has told something before, and tells more when it is told to."""

    id = "id-1"
    task = None
    state = PROGRESS
    result = {"done": 1, "total": 4}  # noqa: RUF012

    def _expectation(self) -> _Result:
        return self

    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """Keep it."""
        self.tell = listener

    def unlisten(self, listener: Callable[[ResultRecord], object]) -> None:
        """Nothing more is told."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Keep it."""
        self.end: Callable[[Any], None] = lambda _: callback()

    def withdraw(self, callback: Callable[[], None]) -> None:
        """It has ended."""


def _record(**meta: Any) -> ResultRecord:
    return ResultRecord(task_id="id-1", status=PROGRESS, result=meta)


def test_a_wait_draws_what_was_and_what_is_told_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    result: Any = _Result()
    with showing(result) as wait:
        result.tell(_record(done=2, total=4))
        assert wait(0.0) is False
        result.tell(_record(done="nonsense"))
        result.tell(_record(done=4, total=4))
        result.end(result)
        assert wait(None) is True

    assert capsys.readouterr().err.splitlines() == ["id-1: 1 of 4", "id-1: 2 of 4", "id-1: 4 of 4"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_that_are_not_finite_are_passed_over(
    number: float, capsys: pytest.CaptureFixture[str]
) -> None:
    result: Any = _Result()
    with showing(result) as wait:
        result.tell(_record(done=number, total=10))
        result.tell(_record(done=1, total=number))
        result.end(result)
        assert wait(None) is True

    assert capsys.readouterr().err.splitlines() == ["id-1: 1 of 4"]


@pytest.mark.parametrize(("done", "total"), [(1e308, 1), (1e308, 1e-308), (1e308, 1e308), (10**300, 1)])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_numbers_of_any_size_are_drawn(done: float, total: float, is_terminal: bool) -> None:
    screen = io.StringIO()
    with Bar("convert", Console(file=screen, force_terminal=is_terminal, width=60)) as bar:
        bar.move(done, total)

    assert f"{done:g}" in screen.getvalue()


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_bar_fits_its_terminal_whatever_the_note_says(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with Bar("convert", console) as bar:
        bar.move(1, 4)
        bar.move(3, 4, "a long note \x1b[31m with [red]marks[/red] in it " * 9)

    lines = _plain(screen.getvalue())
    assert any("convert" in line and "3/4" in line for line in lines)
    assert all(len(line) <= width for line in lines)
    assert "\x1b[31m" not in screen.getvalue()


def _plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()


def test_a_total_that_is_not_known_draws_the_count() -> None:
    screen = io.StringIO()
    with Bar("convert", Console(file=screen, force_terminal=True, width=60, color_system=None)) as bar:
        bar.move(7)

    assert " 7 " in screen.getvalue()
