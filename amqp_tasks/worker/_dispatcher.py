"""Which job runs next, and when a process must stop taking any: the ready buffer, the free slots and the flow.

Decisions are made under one lock; what follows from them (submitting, handing back, pausing) is done after it is
released, so that nothing foreign is called with the lock held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.worker._job import Job
from amqp_tasks.worker._prefetch import Prefetch
from amqp_tasks.worker._ready import ReadyBuffer

if TYPE_CHECKING:
    from amqp_tasks.clock import Clock
    from amqp_tasks.worker.pool import Pool

__all__ = ("Dispatcher", "Effects", "Flow")

BUSY_AFTER = 1.0
"""Seconds without a free slot after which what was not started is handed back."""


class Flow(Enum):
    """Whether the process takes deliveries."""

    OPEN = "open"
    BUSY = "busy"
    """All slots have been busy for `BUSY_AFTER`; ends when one is free."""
    ALONE = "alone"
    """A job that has crashed its process before runs, or waits for the slots to drain, with nothing beside it."""
    CLOSED = "closed"
    """For good."""


class Effects(Protocol):
    """What the dispatcher asks of the rest of the process. Called without its lock, by any thread."""

    def begin(self, job: Job) -> None:
        """`job` is about to be submitted."""

    def hand_back(self, jobs: Sequence[Job]) -> None:
        """These were not started: requeue them."""

    def put_off(self, job: Job, seconds: float) -> None:
        """`gate` said that it may not start for so long."""

    def set_flow(self, is_open: bool) -> None:
        """Pause or resume the consumers."""

    def resize(self) -> None:
        """The prefetch has changed."""


@dataclass(slots=True)
class _Plan:
    """What to do once the lock is released."""

    start: list[Job] = field(default_factory=list[Job])
    hand_back: list[Job] = field(default_factory=list[Job])
    put_off: list[tuple[Job, float]] = field(default_factory=list[tuple[Job, float]])
    is_prefetch_changed: bool = False
    is_flow_changed: bool = False


class Dispatcher:
    """Thread safety: any thread.

    Args:
        pool: runs the jobs.
        prefetch: follows their durations.
        weights: `worker_queue_weights`.
        effects: see `Effects`.
        gate: seconds until a job may start, 0.0: now; asked with the lock held when there is a slot for it, and only then.
        clock: monotonic time.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        prefetch: Prefetch,
        weights: Mapping[str, float],
        effects: Effects,
        gate: Callable[[Job], float],
        clock: Clock,
    ) -> None:
        self._pool, self._prefetch, self._effects = pool, prefetch, effects
        self._gate, self._clock = gate, clock
        self._lock = threading.Lock()
        self._flow_lock = threading.Lock()
        self._ready: ReadyBuffer[Job] = ReadyBuffer(weights)
        self._free = pool.slots
        self._flow = Flow.OPEN
        self._paused_queues: frozenset[str] = frozenset()
        self._is_flowing = True
        self._alone: Job | None = None
        self._is_alone_running = False
        self._freed_at = clock.monotonic()

    @property
    def flow(self) -> Flow:
        """The present state."""
        return self._flow

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._pool.slots - self._free

    def take(self, jobs: Iterable[Job]) -> None:
        """Accept deliveries that passed all guards; they are run, kept ready, or handed back."""
        plan = _Plan()
        with self._lock:
            if self._flow is not Flow.OPEN:
                plan.hand_back.extend(jobs)
            else:
                for job in jobs:
                    if job.delivery.queue_name in self._paused_queues:
                        plan.hand_back.append(job)
                        continue
                    priority = job.envelope.priority if job.envelope is not None else 0
                    self._ready.push(job, priority=priority, queue_name=job.delivery.queue_name)
                self._fill(plan)
        self._carry_out(plan)

    def done(self, job: Job, duration: float) -> None:
        """A slot is free again."""
        plan = _Plan()
        with self._lock:
            self._free += 1
            self._freed_at = self._clock.monotonic()
            plan.is_prefetch_changed = self._prefetch.observe(duration)
            self._reopen(job, plan)
            self._fill(plan)
        self._carry_out(plan)

    def tick(self) -> None:
        """Hand back what waits behind busy slots; to be called a few times a second."""
        if not len(self._ready):
            return
        plan = _Plan()
        with self._lock:
            is_stuck = self._clock.monotonic() - self._freed_at >= BUSY_AFTER
            if self._flow is Flow.OPEN and self._free == 0 and len(self._ready) and is_stuck:
                self._turn(Flow.BUSY, plan)
                plan.hand_back.extend(self._ready.drain())
                self._restart_prefetch(plan)
        self._carry_out(plan)

    def drop(self, is_lost: Callable[[Job], bool]) -> list[Job]:
        """Forget ready jobs whose connection is lost: the broker has them. Returns those."""
        plan = _Plan()
        with self._lock:
            dropped = self._ready.remove_if(is_lost)
            if self._alone is not None and not self._is_alone_running and is_lost(self._alone):
                dropped.append(self._alone)
                self._alone = None
                self._turn(Flow.OPEN, plan)
        self._carry_out(plan)
        return dropped

    def pause_queues(self, queue_names: frozenset[str]) -> None:
        """Hand back what came from these queues, and what still comes, until another call says otherwise."""
        plan = _Plan()
        with self._lock:
            self._paused_queues = queue_names

            def is_paused(job: Job) -> bool:
                return job.delivery.queue_name in queue_names

            plan.hand_back.extend(self._ready.remove_if(is_paused))
            if self._alone is not None and not self._is_alone_running and is_paused(self._alone):
                plan.hand_back.append(self._alone)
                self._alone = None
                self._turn(Flow.OPEN, plan)
        self._carry_out(plan)

    def restart_prefetch(self) -> None:
        """Forget how long tasks took, and prefetch one for each slot at first."""
        plan = _Plan()
        with self._lock:
            self._restart_prefetch(plan)
        self._carry_out(plan)

    def close(self) -> None:
        """Start nothing more and hand back what was not started; idempotent."""
        plan = _Plan()
        with self._lock:
            if self._flow is not Flow.CLOSED:
                self._turn(Flow.CLOSED, plan)
                plan.hand_back.extend(self._ready.drain())
                if self._alone is not None and not self._is_alone_running:
                    plan.hand_back.append(self._alone)
                    self._alone = None
        self._carry_out(plan)

    def _fill(self, plan: _Plan) -> None:
        """Give free slots to ready jobs."""
        while self._free and len(self._ready) and self._flow is Flow.OPEN:
            job = self._ready.pop()
            if job.turn and (seconds := self._gate(job)) > 0:
                plan.put_off.append((job, seconds))
                continue
            if job.crashes:
                self._isolate(job, plan)
                return
            self._free -= 1
            plan.start.append(job)

    def _isolate(self, job: Job, plan: _Plan) -> None:
        """Let a job that killed its process before run with nothing beside it that could be harmed."""
        self._alone, self._is_alone_running = job, False
        self._turn(Flow.ALONE, plan)
        plan.hand_back.extend(self._ready.drain())
        self._restart_prefetch(plan)
        self._start_alone(plan)

    def _start_alone(self, plan: _Plan) -> None:
        if self._alone is not None and not self._is_alone_running and self._free == self._pool.slots:
            self._is_alone_running = True
            self._free -= 1
            plan.start.append(self._alone)

    def _reopen(self, job: Job, plan: _Plan) -> None:
        """What a freed slot means for the flow."""
        if self._flow is Flow.BUSY:
            self._turn(Flow.OPEN, plan)
        elif self._alone is job:
            self._alone = None
            if self._flow is Flow.ALONE:
                self._turn(Flow.OPEN, plan)
        elif self._flow is Flow.ALONE:
            self._start_alone(plan)

    def _turn(self, flow: Flow, plan: _Plan) -> None:
        self._flow = flow
        plan.is_flow_changed = True

    def _restart_prefetch(self, plan: _Plan) -> None:
        plan.is_prefetch_changed |= self._prefetch.restart()

    def _carry_out(self, plan: _Plan) -> None:
        if plan.is_flow_changed:
            self._apply_flow()
        if plan.is_prefetch_changed:
            self._effects.resize()
        # After the pause, or the broker would send them right back.
        if plan.hand_back:
            self._effects.hand_back(plan.hand_back)
        for job, seconds in plan.put_off:
            self._effects.put_off(job, seconds)
        for job in plan.start:
            self._effects.begin(job)
            self._pool.submit(job)

    def _apply_flow(self) -> None:
        """Bring the consumers in line with the flow as it is now, whichever thread changed it last."""
        with self._flow_lock:
            is_open = self._flow is Flow.OPEN
            if is_open != self._is_flowing:
                self._is_flowing = is_open
                self._effects.set_flow(is_open)
