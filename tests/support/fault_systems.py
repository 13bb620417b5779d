"""The systems that a fault run can be made with: ours, and peers in the settings that their documentation calls safe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import systems
from benchmarks.systems import TESTS, System
from support.raw import RawMessage

__all__ = ("SYSTEMS", "FaultSystem")

QUEUE = "work"
OWN = "amqp-tasks"
HEARTBEAT = 10
"""Seconds, for all systems."""


@dataclass(frozen=True, kw_only=True)
class FaultSystem:
    """One system.

    Attributes:
        name: as the command line and the table have it.
        module: of its callers and its workers' app, see `support.callers`.
        system: of so many processes, how its worker is started.
        dead_queue: where its dead letters are; None for nowhere.
        held_queue: where messages wait that are neither ready nor dead; None for nowhere.
        has_results: whether its caller can wait for results.
    """

    name: str
    module: str
    system: Callable[[int], System]
    dead_queue: str | None
    held_queue: str | None
    has_results: bool

    def worker(self, processes: int) -> tuple[str, ...]:
        """The command of a worker."""
        return self.system(processes).worker

    def caller(self, orders: str) -> tuple[str, ...]:
        """The command of a calling process."""
        return (sys.executable, "-m", self.module, orders)

    def environment(self, url: str) -> dict[str, str]:
        """What its workers and callers are told."""
        chosen = self.system(1)
        return {
            **chosen.environment,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "AMQP_TASKS_BROKER_URL": url,
            "AMQP_TASKS_BROKER_HEARTBEAT": str(HEARTBEAT),
            "BENCH_URL": f"{url}?heartbeat={HEARTBEAT}",
            "BENCH_QUEUE": QUEUE,
            "BENCH_QUEUE_TYPE": chosen.queue_type,
            "BENCH_PREFETCH": "4",
        }

    def reason_of(self, message: RawMessage) -> str:
        """Why a message is among the dead letters; empty where the system does not say."""
        return str(message.headers.get("x-error-reason", ""))


def _own(processes: int) -> System:
    return systems.own("quorum", module="support.worker_app:app", processes=processes, flags=())


def _celery(processes: int) -> System:
    module = "support.callers.celery_peer"
    return systems.celery("quorum", module=module, processes=processes, flags=("-l", "INFO"))


def _dramatiq(processes: int) -> System:
    return systems.dramatiq(module="support.callers.dramatiq_peer", processes=processes, threads=1)


SYSTEMS: Mapping[str, FaultSystem] = {
    each.name: each
    for each in (
        FaultSystem(
            name=OWN,
            module="support.callers.own",
            system=_own,
            dead_queue=f"{QUEUE}.dead",
            held_queue=None,
            has_results=True,
        ),
        FaultSystem(
            name="celery",
            module="support.callers.celery_peer",
            system=_celery,
            dead_queue=None,
            held_queue=None,
            has_results=True,
        ),
        FaultSystem(
            name="dramatiq",
            module="support.callers.dramatiq_peer",
            system=_dramatiq,
            dead_queue=f"{QUEUE}.XQ",
            held_queue=f"{QUEUE}.DQ",
            has_results=False,
        ),
    )
}
"""By name; the first is ours."""
