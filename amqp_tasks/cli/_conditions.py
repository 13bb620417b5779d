"""`--where KEY=VALUE`: which dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

import click

from amqp_tasks.app import DeadLetterFilter

__all__ = ("where",)

_FIELDS = {
    "id": "ids",
    "task": "tasks",
    "reason": "reasons",
    "error": "errors",
    "older": "older",
    "newer": "newer",
}
_AGES = frozenset({"older", "newer"})
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_SECONDS = 100 * 365 * 86_400
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw]?)", re.ASCII)


def where(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> DeadLetterFilter:
    """The conditions as a filter: different keys must all fit, of one key's values any.

    Raises:
        click.BadParameter: an unknown key, an empty value, a duration that is none, an age given twice.
    """
    given: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if key not in _FIELDS or not equals:
            raise click.BadParameter(_unknown(text, key), ctx, param)
        if not value:
            raise click.BadParameter(f"{text!r} has no value", ctx, param)
        field = _FIELDS[key]
        if key not in _AGES:
            given[field] = (*given.get(field, ()), value)
        elif field in given:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        else:
            given[field] = _duration(ctx, param, text, value)
    return DeadLetterFilter(**given)


def _unknown(text: str, key: str) -> str:
    near = get_close_matches(key, _FIELDS, n=1)
    hint = f", did you mean {near[0]!r}?" if near and near[0] != key else ";"
    return f"{text!r} is no condition{hint} write KEY=VALUE with one of the keys {', '.join(_FIELDS)}"


def _duration(ctx: click.Context, param: click.Parameter, text: str, value: str) -> timedelta:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise click.BadParameter(
            f"{text!r} names no duration: write a number and s, m, h, d or w, such as 90s, 10m or 2h",
            ctx,
            param,
        )
    number, unit = match.groups()
    seconds = float(number) * _SECONDS[unit]
    if seconds > _MAX_SECONDS:
        raise click.BadParameter(f"{text!r} is longer than a hundred years", ctx, param)
    return timedelta(seconds=seconds)
