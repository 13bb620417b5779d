"""What options hold beyond text and numbers: names, JSON, concurrency, seconds. Most are callbacks of `click.option`."""

from __future__ import annotations

import json
import math
import threading
from datetime import datetime
from typing import Any, TypeVar, get_args

import click

from amqp_tasks.clock import MAX_SECONDS
from amqp_tasks.settings._worker import GREENLET_POOLS, POOL_ALIASES, Pool

__all__ = (
    "PoolName",
    "Seconds",
    "comma_separated",
    "concurrency",
    "json_list",
    "json_object",
    "not_empty",
    "point_in_time",
    "umask",
)

T = TypeVar("T")

_MAX_MASK = 0o777
_MAX_SECONDS = min(MAX_SECONDS, threading.TIMEOUT_MAX)

# Declared, for bare `list` and `dict` say nothing about what they hold.
_LIST: type[list[Any]] = list
_OBJECT: type[dict[str, Any]] = dict


class PoolName(click.Choice[Any]):
    """A pool, by Celery's other names, too; of those that there are not, what to use."""

    def __init__(self) -> None:
        super().__init__(get_args(Pool))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if value in GREENLET_POOLS:
            self.fail(f"there is no greenlet pool: use 'threads' instead of {value!r}", param, ctx)
        return super().convert(POOL_ALIASES.get(value, value), param, ctx)


class Seconds(click.FloatRange):
    """A range of seconds, in which click's own would let through what is no number, and what no wait can be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number of seconds", param, ctx)
        if seconds > _MAX_SECONDS:
            self.fail(f"{value} is too long: at most {_MAX_SECONDS:.0f} seconds", param, ctx)
        return seconds


def comma_separated(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`a, b` as `("a", "b")`; None when the option was not given.

    Raises:
        click.BadParameter: one of the names is empty.
    """
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; write a,b", ctx, param)
    return names


def not_empty(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A text of at least one character.

    Raises:
        click.BadParameter: it is empty.
    """
    if not value:
        raise click.BadParameter("it is empty", ctx, param)
    return value


def json_list(ctx: click.Context, param: click.Parameter, value: str) -> list[Any]:
    """A JSON list.

    Raises:
        click.BadParameter: it is not one.
    """
    return _decoded(ctx, param, value, _LIST, "a list such as '[1, \"a\"]'")


def json_object(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        click.BadParameter: it is not one.
    """
    return _decoded(ctx, param, value, _OBJECT, "an object such as '{\"x\": 1}'")


def point_in_time(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """An ISO 8601 time; None when the option was not given.

    Raises:
        click.BadParameter: it is not one.
    """
    try:
        return None if value is None else datetime.fromisoformat(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is no time; write 2041-05-01T09:00+02:00", ctx, param) from exc


def umask(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A mask of file permissions in octal, `022` or `0o22`; None when the option was not given.

    Raises:
        click.BadParameter: it is not one.
    """
    try:
        mask = None if value is None else int(value, 8)
    except ValueError:
        mask = -1
    if mask is not None and not 0 <= mask <= _MAX_MASK:
        raise click.BadParameter(f"{value!r} is no octal number from 0 to 777; write 022", ctx, param)
    return mask


def _decoded(ctx: click.Context, param: click.Parameter, value: str, kind: type[T], expected: str) -> T:
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise click.BadParameter(
            f"{value!r} is not JSON ({exc}); quote it for the shell", ctx, param
        ) from exc
    if not isinstance(decoded, kind):
        raise click.BadParameter(f"expected {expected}, got {value}", ctx, param)
    return decoded


def concurrency(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A number of slots, or `auto` for the CPUs that this process may use.

    Raises:
        click.BadParameter: neither.
    """
    if value is None or value == "auto":
        return value
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of at least 1 nor 'auto'", ctx, param)
    return int(value)
