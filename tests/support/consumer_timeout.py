"""A short consumer timeout for a private broker, which looks for it once a minute otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.private import PrivateNode

__all__ = ("consumer_timeout",)


@contextmanager
def consumer_timeout(node: PrivateNode, milliseconds: int) -> Iterator[None]:
    """For channels that are opened meanwhile; the broker looks as often as it would with half an hour."""
    _set_limits(node, milliseconds, milliseconds // 5)
    try:
        yield
    finally:
        _set_limits(node, 1_800_000, 60_000)


def _set_limits(node: PrivateNode, timeout: int, tick: int) -> None:
    values = f"{{consumer_timeout, {timeout}}}, {{channel_tick_interval, {tick}}}"
    node.ctl("eval", f"[application:set_env(rabbit, Key, Value) || {{Key, Value}} <- [{values}]].")
