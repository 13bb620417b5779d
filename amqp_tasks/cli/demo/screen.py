"""How the demo looks: a bar and a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table

from amqp_tasks.app._bar import Bar
from amqp_tasks.cli.demo.measure import Latency
from amqp_tasks.cli.demo.runner import DemoReport

__all__ = ("Screen",)


class Screen:
    """A context: the bar lives inside of it.

    Args:
        console: where to write; without a terminal no control characters are written.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar("indexing", console, line="indexed {done} of {total} files")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        """One line."""
        self._bar.note(text)

    def progress(self, done: int, total: int) -> None:
        """Move the bar; without a terminal, a line for each quarter."""
        self._bar.move(done, total)

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
