"""How far something has got, for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from amqp_tasks.app._fraction import fraction_of
from amqp_tasks.message import printable

__all__ = ("Bar",)

_QUARTERS = 4
_MAX_LABEL, _MAX_NOTE = 25, 200
_TIME_AND_GAPS = 12


class Bar:
    """A context; what is drawn begins with the first `move`. Texts may come from messages.

    Thread safety: one thread at a time.

    Args:
        label: what it is about, in front of the bar.
        console: where to write; None: stderr. Without a terminal no control characters are written.
        line: a line for one that is no terminal, one for each quarter; with `{done}` and `{total}`.
    """

    def __init__(
        self, label: str, console: Console | None = None, *, line: str = "{label}: {done} of {total}"
    ) -> None:
        self._label, self._line = printable(label, _MAX_LABEL), line
        self._console = console if console is not None else Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._quarter = 0
        self._has_notes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """One line, above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def move(self, done: float, total: float | None = None, note: str = "") -> None:
        """So much is done, of so much; None: nobody knows of how much."""
        fraction = fraction_of(done, total)
        if self._console.is_terminal:
            count = f"{done:g}" if total is None else f"{done:g}/{total:g}"
            self._draw(fraction, count, printable(note, _MAX_NOTE))
        elif fraction is not None:
            quarter = int(fraction * _QUARTERS)
            if quarter > self._quarter:
                self._quarter = quarter
                self.note(self._line.format(label=self._label, done=f"{done:g}", total=f"{total:g}"))

    def _draw(self, fraction: float | None, count: str, note: str) -> None:
        if self._bar is None or self._task is None:
            self._bar = Progress(*_columns(), console=self._console)
            self._task = self._bar.add_task(self._label, total=None, count="", note="")
            self._bar.start()
        # Not the numbers themselves: rich computes with them, and large ones overflow.
        total = None if fraction is None else 1.0
        self._bar.update(
            self._task, completed=fraction, total=total, count=count, note=self._fitting(note, count)
        )

    def _fitting(self, note: str, count: str) -> str:
        """The note in half of what the rest leaves, always as wide, so that the bar does not jump."""
        self._has_notes = self._has_notes or bool(note)
        width = (self._console.width - len(self._label) - len(count) - _TIME_AND_GAPS) // 2
        if not self._has_notes or width < 1:
            return ""
        return (note if len(note) <= width else f"{note[: width - 1]}…").ljust(width)


def _columns() -> tuple[TextColumn | BarColumn | TimeElapsedColumn, ...]:
    def text(field: str) -> TextColumn:
        return TextColumn(field, markup=False, table_column=Column(no_wrap=True))

    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    count, note = text("{task.fields[count]}"), text("{task.fields[note]}")
    return text("{task.description}"), bar, count, TimeElapsedColumn(), note
