"""Waiting for results in an event loop: the I/O thread tells the loop, and no thread waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from amqp_tasks.app._result import refuse_inside_task

if TYPE_CHECKING:
    from amqp_tasks.app._result import AsyncResult

__all__ = ("as_completed", "value_of", "values_of")

R = TypeVar("R")


async def value_of(result: AsyncResult[R]) -> R:
    """See `AsyncResult.__await__`."""
    refuse_inside_task()
    with _ending([result]) as ended:
        await ended.get()
    return result.get(0)


async def values_of(results: Collection[AsyncResult[R]]) -> list[R]:
    """See `ResultSet.__await__`."""
    return [await result for result in results]


async def as_completed(results: Collection[AsyncResult[R]]) -> AsyncGenerator[AsyncResult[R]]:
    """See `ResultSet.__aiter__`."""
    refuse_inside_task()
    with _ending(results) as ended:
        for _ in results:
            yield await ended.get()


@contextmanager
def _ending(results: Collection[AsyncResult[R]]) -> Generator[asyncio.Queue[AsyncResult[R]]]:
    """A queue to which each comes when it has ended; nothing is left behind with those that have not."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Any] = asyncio.Queue()

    def tell(result: object) -> None:
        with suppress(RuntimeError):  # the loop was closed, so nobody waits any more
            loop.call_soon_threadsafe(ended.put_nowait, result)

    with ExitStack() as withdrawals:
        for result in results:
            withdrawals.callback(result._call_when_ready(tell))
        yield ended
