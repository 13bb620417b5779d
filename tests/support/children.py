"""Child processes that call tasks, made in every way that Python has."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Protocol

from support.worker_client import WorkerClient

__all__ = ("WAYS", "Child", "keys_of_child", "start_child")

CALLS = 20
WAYS = ("os.fork", "fork", "spawn", "forkserver")


class Child(Protocol):
    """A child that was started."""

    def wait(self) -> int:
        """Its exit status; waits for its end."""


def start_child(way: str, client: WorkerClient, url: str, number: int) -> Child:
    """Start a child that calls tasks and waits for their results, one after the other.

    A forked one goes on with the parent's client, whose connections are open; what is spawned makes its own.
    """
    if way == "os.fork":
        return _Forked(lambda: call_tasks(client, number))
    target, given = (call_tasks, client) if way == "fork" else (call_tasks_at, url)
    return _Multiprocessed(way, target, given, number)


def keys_of_child(number: int) -> list[str]:
    """What it calls."""
    return [f"child-{number}-{call}" for call in range(CALLS)]


def call_tasks(client: WorkerClient, number: int) -> None:
    """In the child."""
    keys = keys_of_child(number)
    assert [client.act(key).get(timeout=20) for key in keys] == keys


def call_tasks_at(url: str, number: int) -> None:
    """In a child that has nothing of its parent's."""
    with WorkerClient(url) as client:
        call_tasks(client, number)


class _Forked:
    def __init__(self, work: Callable[[], None]) -> None:
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


class _Multiprocessed:
    def __init__(self, way: str, target: Callable[..., None], *arguments: object) -> None:
        self._process = multiprocessing.get_context(way).Process(target=target, args=arguments)  # type: ignore[attr-defined]
        self._process.start()

    def wait(self) -> int:
        self._process.join(40)
        assert self._process.exitcode is not None, "the child did not end"
        return int(self._process.exitcode)
