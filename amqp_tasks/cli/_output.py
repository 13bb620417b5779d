"""Data for people or for programs: a table, or JSON with `--json`; always on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from amqp_tasks.message import printable

__all__ = ("json_option", "print_json", "print_lines", "print_table")

_MAX_CELL = 10_000

F = TypeVar("F", bound=Callable[..., object])


def json_option(command: F) -> F:
    """Add `--json` to a command, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def print_json(data: Any) -> None:
    """Print `data` as indented JSON; what JSON cannot say is shown by `str`."""
    # ensure_ascii: names come from messages and may hold control characters, which must not reach a terminal.
    click.echo(json.dumps(data, indent=2, ensure_ascii=True, default=str))


def print_lines(text: str) -> None:
    """Print text line by line, each made safe for a terminal."""
    for line in text.splitlines():
        click.echo(printable(line, _MAX_CELL))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need; numbers to the right; nothing is cut, whatever the terminal.

    Cells are made safe for a terminal, as they may come from messages.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        for index in range(len(headings))
    ]
    click.echo(click.style(_line(headings, widths, numeric), bold=True))
    for row in cells:
        click.echo(_line(row, widths, numeric))


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value), _MAX_CELL)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(aligned).rstrip()
