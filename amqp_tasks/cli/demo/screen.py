"""How the demo looks: a bar and a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from amqp_tasks.cli.demo.measure import Latency
from amqp_tasks.cli.demo.runner import DemoReport

__all__ = ("Screen",)

_QUARTERS = 4


class Screen:
    """A context: the bar lives inside of it.

    Args:
        console: where to write; without a terminal no control characters are written.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._quarter = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        """Move the bar; without a terminal, a line for each quarter."""
        if self._console.is_terminal:
            self._move(done, total)
            return
        quarter = done * _QUARTERS // total
        if quarter > self._quarter:
            self._quarter = quarter
            self.note(f"indexed {done} of {total} files")

    def _move(self, done: int, total: int) -> None:
        if self._bar is None or self._task is None:
            columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def table(self, report: DemoReport) -> None:
        """The end: what was done, and what the queue of one's own was good for."""
        totals = report.totals
        self.note(
            f"\n{report.path}: {totals['bytes'] / 1e6:.1f} MB, {totals['lines']:,} lines, {totals['words']:,} words, "
            f"longest line {report.longest_line:,} bytes"
        )
        table = Table(
            title=f"{report.tasks:,} tasks in {report.seconds:.2f} s: {report.tasks / report.seconds:,.0f} tasks/s"
        )
        for heading in ("look-ups while the backlog stood", "count", "p50", "p99"):
            table.add_column(heading, justify="left" if heading.startswith("look") else "right")
        table.add_row("sent to hipri", *_cells(report.hipri))
        table.add_row("the same, sent to lopri", *_cells(report.lopri))
        self._console.print(table)


def _cells(latency: Latency | None) -> tuple[str, str, str]:
    if latency is None:
        return "0", "-", "-"
    return str(latency.count), _milliseconds(latency.p50), _milliseconds(latency.p99)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"
