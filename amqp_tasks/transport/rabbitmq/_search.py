"""Which of a consumer's queues exist? A consume of a missing one would close the channel and stale its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amqp_routing import Topology
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._operations import Operation, Script
from amqp_tasks.transport.rabbitmq._topology import may_consume_script, presence_script

__all__ = ("Found", "QueueSearch")

Found = Callable[[Sequence[str], Sequence[str], bool, Exception | None], None]
"""Present queues, absent ones, whether others are still to be looked for now, and what went wrong with the first absent one."""


class QueueSearch:
    """One search at a time. Owner thread only.

    Those that were missing last wait for a turn of their own, after the others: looking for one may take as long as an operation may.
    """

    def __init__(self, loop: DoorLoop, declare: Topology | None, *, timeout: float) -> None:
        self._loop, self._declare, self._timeout = loop, declare, timeout
        self._deferred: list[str] = []
        self._suspects: set[str] = set()
        self._operation: Operation | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether an answer is waited for."""
        return self._operation is not None and not self._operation.is_over

    def forget(self) -> None:
        """There is a new channel: all are looked for in their order."""
        self._deferred.clear()

    def start(self, connection: FastConnection, names: Sequence[str], then: Found) -> None:
        """Look for `names`, and declare what is missing and can be."""
        deferred = [name for name in self._deferred if name in names]
        names = [name for name in names if name not in deferred] or deferred
        found: tuple[list[str], list[str]] = ([], [])
        self._operation = Operation(
            self._loop,
            connection,
            self._script(names, *found),
            timeout=self._timeout,
            on_done=partial(self._on_found, names, found, then),
        )
        self._operation.start()

    def suspect(self, name: str) -> None:
        """A consume of this one was refused: ask first, from now on until it is found that it may be consumed."""
        self._suspects.add(name)

    def _script(self, names: Sequence[str], present: list[str], absent: list[str]) -> Script[None]:
        for name in names:
            if name in self._suspects:
                yield from may_consume_script(name)
                self._suspects.discard(name)
            yield from presence_script((name,), self._declare, present, absent)

    def _on_found(
        self,
        names: Sequence[str],
        found: tuple[list[str], list[str]],
        then: Found,
        _result: Any,
        error: Exception | None,
    ) -> None:
        present, absent = found
        is_more_now = False
        if error is not None:
            # The broker cannot say of one queue: it is looked for again, and those after it now. (A broker that
            # answers nothing at all is the heartbeat's case.)
            rest = [name for name in names if name not in present and name not in absent]
            absent += rest[:1]
            is_more_now = any(name not in self._deferred for name in rest[1:])
        # The one just asked for goes last, so that one without an answer does not hide those after it.
        self._deferred = [name for name in self._deferred if name not in present and name not in absent]
        self._deferred += absent
        then(present, absent, is_more_now, error)
