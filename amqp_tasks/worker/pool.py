"""The contract of pools: where tasks of one process run. `pools/` holds the implementations."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from amqp_tasks.errors import ConfigurationError

__all__ = ("Capabilities", "Layout", "Pool", "Runnable", "require")

logger = logging.getLogger(__name__)


class Runnable(Protocol):
    """A job as a pool sees it."""

    def run(self, slot: int) -> None:
        """Run it and report its one outcome; raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a pool can do to a running task or to itself; asking for more fails at start (`require`).

    Attributes:
        recycle: its process can be replaced (`worker_max_tasks_per_child`, `worker_max_memory_per_child`).
        end_a_task: a running task can be ended with its process and nothing else (`task_time_limit`).
    """

    recycle: bool
    end_a_task: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a concurrency of n means.

    Attributes:
        processes: worker processes; 0 runs in the calling process.
        slots: tasks at the same time in each of them.
    """

    processes: int
    slots: int


class Pool(ABC):
    """The slots of one process.

    Life: 1. `start`; 2. one thread enters `serve` and stays there until 4; 3. `submit` while a slot is free, each
    job runs exactly once and reports its own outcome; 4. `stop`. The pool knows nothing of messages; who submits keeps count of
    the free slots, so nothing waits in a pool.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def __init__(self, slots: int) -> None:
        self.slots = slots

    @classmethod
    @abstractmethod
    def layout(cls, concurrency: int) -> Layout:
        """Processes and slots for `worker_concurrency`."""

    @abstractmethod
    def start(self) -> None:
        """Make the slots; returns at once."""

    @abstractmethod
    def serve(self) -> None:
        """Lend the calling thread to the pool; returns after `stop`."""

    @abstractmethod
    def submit(self, job: Runnable) -> None:
        """Run `job` in a free slot; returns at once. Any thread.

        Raises:
            RuntimeError: stopped.
        """

    @abstractmethod
    def stop(self) -> None:
        """Take no more jobs and let `serve` return when those submitted have ended. Idempotent; any thread."""

    @staticmethod
    def _run(job: Runnable, slot: int) -> None:
        """Run it in the calling thread, which is a slot and goes on even if the job breaks its word and raises something."""
        try:
            job.run(slot)
        except BaseException:
            logger.exception("unexpected error in slot %d", slot, extra={"action": "slot_error"})


def require(pool: type[Pool], *, capability: str, asked_by: str) -> None:
    """Refuse a setting that a pool cannot honour.

    Raises:
        ConfigurationError: it cannot; names the setting and the pools' difference.
    """
    if not getattr(pool.capabilities, capability):
        raise ConfigurationError(
            f"{asked_by} needs a pool that can {capability.replace('_', ' ')}, and {pool.name!r} cannot: "
            f"use worker_pool='prefork', or leave {asked_by} unset"
        )
