"""Bringing a queue that exists to the arguments that the app declares: `app.migration`.

The steps, and what becomes of them when something fails: `docs/explanation/migrating.md`. Nothing is remembered here: each run looks at
what the broker has and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from amqp_routing import Binding, Queue, QueueType, Topology
from amqp_tasks.app._mover import Mover
from amqp_tasks.errors import (
    BrokerOperationError,
    ConfigurationError,
    MigrationRefused,
    TopologyMismatch,
    UnknownQueue,
)
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport._delay import due_binding
from amqp_tasks.transport.management import Management

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.transport import Transport

__all__ = ("Migrated", "Migration", "MigrationPlan", "MigrationProgress", "MigrationStep")

SUFFIX = ".migrating"
_QUIET_AT_THE_END = 1.0
_MAX_SWAPS = 5
_NOT_FOUND = 404
_NO_LIMIT = 2**31 - 1


class MigrationStep(StrEnum):
    """Where a migration is."""

    MOVE_OUT = "move out"
    SWAP = "swap"
    MOVE_BACK = "move back"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """What a migration would do.

    Attributes:
        queue_name: which queue.
        next_step: where it begins, or goes on; `DONE`: nothing is to be done.
        differences: a line for each argument that differs.
        messages: ready messages of the queue; None when it is not there.
        consumers: of the queue.
        waiting: messages of an interrupted migration that wait to come back; None when there is none.
        bindings: those that are kept.
        knows_all_bindings: whether the management API told them, or only the app's topology.
    """

    queue_name: str
    next_step: MigrationStep
    differences: tuple[str, ...]
    messages: int | None
    consumers: int
    waiting: int | None
    bindings: tuple[Binding, ...]
    knows_all_bindings: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationProgress:
    """How far a migration is: `moved` messages in this step, `left` to go (more may arrive)."""

    step: MigrationStep
    moved: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What `Migration.run` did: how many messages left the queue, and how many came back to it."""

    queue_name: str
    moved_out: int
    moved: int


class Migration:
    """The migration of one queue; made by `App.migration`. Thread safety: one thread.

    Args:
        app: whose topology says what is wanted.
        queue_name: a task queue or a dead-letter queue.
        to_type: in place of the type that the app declares.
        management_url: of the API that tells bindings which the app does not know; None: they are not kept.
        quiet: seconds without an arrival after which the queue is swapped.
        patience: seconds to wait for that.

    Raises:
        UnknownQueue: the app does not know the queue and may not create it.
        ConfigurationError: a stream, or a type that its other arguments do not go with.
    """

    def __init__(
        self,
        app: App,
        queue_name: str,
        *,
        to_type: str | None = None,
        management_url: str | None = None,
        quiet: float = 3.0,
        patience: float = 60.0,
    ) -> None:
        self._transport: Transport = app.transport
        self._management: Management | None = None
        self._name, self._aside = queue_name, queue_name + SUFFIX
        self._wanted = app.resources.topologies.for_migration(
            queue_name, None if to_type is None else QueueType(to_type)
        )
        if management_url is not None:
            self._management = Management(management_url, vhost=app.settings.broker.url[0].vhost)
        self._quiet, self._patience = quiet, patience
        queue = self._wanted.queue(queue_name)
        assert queue is not None
        if queue.type is QueueType.STREAM:
            raise ConfigurationError(
                f"queue {queue_name!r} is declared as a stream, to which nothing can be migrated"
            )

    def plan(self) -> MigrationPlan:
        """Look; nothing is changed.

        Raises:
            UnknownQueue: neither the queue nor an interrupted migration is there.
            TopologyMismatch: something beside the queue is declared otherwise; that must be mended first.
            BrokerConnectionError, BrokerOperationError: the broker cannot be asked.
        """
        status = self._transport.queue_status(self._name)
        aside = self._transport.queue_status(self._aside)
        if status is None and aside is None:
            raise UnknownQueue(
                self._name, hint="the broker has no such queue: run `amqp-tasks topology apply`"
            )
        differences = self._differences() if status is not None else ()
        step = MigrationStep.DONE
        if differences:
            step = MigrationStep.MOVE_OUT
        elif aside is not None:
            step = MigrationStep.MOVE_BACK if status is not None else MigrationStep.SWAP
        return MigrationPlan(
            queue_name=self._name,
            next_step=step,
            differences=differences,
            messages=None if status is None else status.messages,
            consumers=0 if status is None else status.consumers,
            waiting=None if aside is None else aside.messages,
            bindings=self._bindings(self._name),
            knows_all_bindings=self._management is not None,
        )

    def run(self, on_progress: Callable[[MigrationProgress], None] | None = None) -> Migrated:
        """Migrate, or go on with a migration that was interrupted; idempotent.

        Args:
            on_progress: called in this thread at the beginning of each step and several times a second.

        Raises:
            MigrationRefused: the queue has consumers, or messages keep arriving. All is in place, to be run again.
            PublishError: a message could not be moved; it is where it was.
            Exception: as `plan`.
        """
        tell = on_progress or _nobody
        moved_out = 0
        plan = self.plan()
        if plan.next_step is MigrationStep.DONE:
            return Migrated(queue_name=self._name, moved_out=0, moved=0)
        # Before anything is unbound: afterwards nobody could tell.
        bindings = plan.bindings
        for _ in range(_MAX_SWAPS):
            if plan.next_step is not MigrationStep.MOVE_OUT:
                break
            self._refuse_consumers(plan.consumers)
            moved_out += self._move_out_and_swap(bindings, tell)
            # A producer with old settings may have been quicker, and declared the old queue once more.
            plan = self.plan()
        if plan.next_step is MigrationStep.MOVE_OUT:
            raise MigrationRefused(
                self._name,
                "somebody declares the old queue again and again: stop its producers, and run this again",
            )
        moved = self._move_back(bindings, tell)
        tell(MigrationProgress(step=MigrationStep.DONE, moved=moved))
        return Migrated(queue_name=self._name, moved_out=moved_out, moved=moved)

    def _differences(self) -> tuple[str, ...]:
        found = self._transport.compare_topology(self._wanted)
        own = tuple(line for line in found if line.startswith(f"queue {self._name!r} exists "))
        others = tuple(line for line in found if line not in own and " exists with " in line)
        if others:
            raise TopologyMismatch(others)
        if any(self._is_stream(line) for line in own):
            raise ConfigurationError(f"queue {self._name!r} is a stream, from which nothing can be moved")
        return own

    @staticmethod
    def _is_stream(line: str) -> bool:
        return " exists with x-queue-type=stream," in line

    def _bindings(self, queue_name: str) -> tuple[Binding, ...]:
        """What leads to the queue, as far as that can be known, with `queue_name` as its end."""
        found = [each for each in self._wanted.bindings if each.source and each.destination == self._name]
        if self._management is not None:
            for name in (self._name, self._aside):
                found += self._management.bindings_of(name)
        return tuple(dict.fromkeys(replace(each, destination=queue_name) for each in found))

    def _refuse_consumers(self, others: int) -> None:
        if others:
            raise MigrationRefused(
                self._name, f"{others} consume it: stop the workers of this queue, and run this again"
            )

    def _move_out_and_swap(
        self, bindings: tuple[Binding, ...], tell: Callable[[MigrationProgress], None]
    ) -> int:
        tell(MigrationProgress(step=MigrationStep.MOVE_OUT))
        aside = Queue(self._aside, delivery_limit=_NO_LIMIT)
        self._transport.ensure_topology(Topology(queues=(aside,)), mode=TopologyMode.DECLARE)
        self._bind(bindings, self._aside)
        self._transport.unbind((*bindings, due_binding(self._name)))
        with Mover(self._transport, self._name, self._aside, queue_name=self._name) as mover:
            is_quiet = mover.wait_until_quiet(
                self._quiet, self._patience, partial(self._moving_out, tell, mover)
            )
            if not is_quiet:
                raise MigrationRefused(
                    self._name,
                    f"messages keep arriving, or are not confirmed, and a message on its way to a queue that is deleted is lost: pause its producers"
                    f" for {self._quiet:g} s, and run this again",
                )
            tell(MigrationProgress(step=MigrationStep.SWAP, moved=mover.moved))
            self._refuse_consumers(mover.other_consumers())
            # The consumer stays until the new queue is there: what it was sent last is moved, too.
            self._transport.delete_queue(self._name)
            self._declare_wanted()
            mover.finish()
        return mover.moved

    def _moving_out(self, tell: Callable[[MigrationProgress], None], mover: Mover, left: int) -> None:
        # Whoever delays something to the queue binds it again, and what is due would go to both.
        self._transport.unbind((due_binding(self._name),))
        self._tell(tell, MigrationStep.MOVE_OUT, mover, left)

    def _declare_wanted(self) -> None:
        try:
            self._transport.ensure_topology(self._wanted, mode=TopologyMode.DECLARE)
        except TopologyMismatch:
            # See `run`: what is there now is looked at.
            return

    def _move_back(self, bindings: tuple[Binding, ...], tell: Callable[[MigrationProgress], None]) -> int:
        self._transport.ensure_topology(self._wanted, mode=TopologyMode.DECLARE)
        self._bind(bindings, self._name)
        aside = tuple(replace(each, destination=self._aside) for each in bindings)
        self._transport.unbind((*aside, replace(due_binding(self._name), destination=self._aside)))
        tell(MigrationProgress(step=MigrationStep.MOVE_BACK))
        with Mover(self._transport, self._aside, self._name, queue_name=self._name) as mover:
            # Nobody publishes there any more; what is on its way arrives within that.
            is_quiet = mover.wait_until_quiet(
                min(self._quiet, _QUIET_AT_THE_END),
                self._patience,
                partial(self._tell, tell, MigrationStep.MOVE_BACK, mover),
            )
            if not is_quiet:
                raise MigrationRefused(
                    self._name,
                    f"not all messages of {self._aside!r} are back in it: nothing is lost, run this again",
                )
            self._transport.delete_queue(self._aside)
            mover.finish()
        return mover.moved

    def _bind(self, bindings: tuple[Binding, ...], queue_name: str) -> None:
        self._transport.bind(replace(each, destination=queue_name) for each in bindings)
        try:
            self._transport.bind((replace(due_binding(self._name), destination=queue_name),))
        except BrokerOperationError as exc:
            # Without the wheel nothing was ever delayed.
            if exc.reply_code != _NOT_FOUND:
                raise

    @staticmethod
    def _tell(
        tell: Callable[[MigrationProgress], None], step: MigrationStep, mover: Mover, left: int
    ) -> None:
        tell(MigrationProgress(step=step, moved=mover.moved, left=left))


def _nobody(progress: MigrationProgress) -> None:
    """Nobody wants to know."""
