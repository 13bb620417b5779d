"""Data for people or for programs: a table, or JSON with `--json`; always on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, cast

import click

from amqp_tasks.message import printable

__all__ = ("as_json_text", "finite", "print_json", "print_lines", "print_table")

_MAX_CELL = 10_000


def as_json_text(data: Any, *, indent: int | None = None) -> str:
    """`data` as JSON that can be read and is safe for a terminal; what JSON cannot say is text.

    Values come from messages and may hold control characters, which must not reach a terminal.
    """
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(_sayable(data), indent=indent, ensure_ascii=not is_unicode, default=str)
    if text.isascii():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def finite(number: float) -> float | str:
    """A number as JSON can say it: one that is not finite is text."""
    return number if math.isfinite(number) else repr(number)


def _sayable(data: Any) -> Any:
    match data:
        case float():
            return finite(data)
        case dict():
            return {key: _sayable(item) for key, item in cast("dict[object, Any]", data).items()}
        case list() | tuple():
            return [_sayable(item) for item in cast("Sequence[Any]", data)]
        case _:
            return data


def print_json(data: Any) -> None:
    """Print `data` as indented JSON, see `as_json_text`."""
    click.echo(as_json_text(data, indent=2))


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
