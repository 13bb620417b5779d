"""Deliveries, a pool and a clock for unit tests of the worker; no broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from amqp_tasks.message import Properties, read_envelope
from amqp_tasks.transport import Delivery
from amqp_tasks.worker._job import Job, key_of
from amqp_tasks.worker.pool import Capabilities, Layout, Pool, Runnable

__all__ = ("Effects", "FakeClock", "FakeDelivery", "ManualPool", "job_of", "key")


@dataclass
class FakeClock:
    """Time that the test moves."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.seconds

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.fromtimestamp(self.seconds, UTC)


class FakeDelivery(Delivery):
    """A delivery with given headers."""

    __slots__ = ("_properties",)

    def __init__(self, task_id: str, *, epoch: int = 1, redelivered: bool = False, **changes: Any) -> None:
        headers = {"task": "act", "id": task_id, **changes.pop("headers", {})}
        self.body = changes.pop("body", b"[[], {}, {}]")
        self.queue_name = changes.pop("queue_name", "work")
        self.exchange, self.routing_key = "", self.queue_name
        self.redelivered, self.delivery_tag, self.epoch = redelivered, 1, epoch
        self._properties = Properties(
            **{"content_type": "application/json", "content_encoding": "utf-8", "headers": headers} | changes
        )

    @property
    def properties(self) -> Properties:
        """As given."""
        return self._properties


def key(task_id: str) -> str:
    """That of the first run of a `FakeDelivery` in its usual queue."""
    return key_of(task_id, queue_name="work")


def job_of(task_id: str, *, crashes: int = 0, **options: Any) -> Job:
    """A job whose headers were read."""
    delivery = FakeDelivery(task_id, **options)
    job = Job(delivery, read_envelope(delivery.properties))
    job.crashes = crashes
    return job


class ManualPool(Pool):
    """Only remembers what was submitted."""

    name = "manual"
    capabilities = Capabilities(recycle=False, end_a_task=False)

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.submitted: list[Runnable] = []

    @classmethod
    def layout(cls, concurrency: int) -> Layout:
        """In this process."""
        return Layout(processes=0, slots=concurrency)

    def start(self) -> None:
        """Nothing to start."""

    def serve(self) -> None:
        """Nothing to serve."""

    def submit(self, job: Runnable) -> None:
        """Remember it."""
        self.submitted.append(job)

    def stop(self) -> None:
        """Nothing to stop."""


@dataclass
class Effects:
    """Effects of the dispatcher, remembered in order."""

    log: list[tuple[str, Any]] = field(default_factory=list)

    def begin(self, job: Job) -> None:
        """Remember."""
        self.log.append(("begin", job.name))

    def put_off(self, job: Job, seconds: float) -> None:
        """Remember."""
        self.log.append(("put off", (job.name, seconds)))

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """Remember."""
        self.log.append(("hand back", [job.name for job in jobs]))

    def set_flow(self, is_open: bool) -> None:
        """Remember."""
        self.log.append(("flow", is_open))

    def resize(self) -> None:
        """Remember."""
        self.log.append(("resize", None))
