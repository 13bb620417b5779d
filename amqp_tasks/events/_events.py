"""Telling events: `Events` publishes them, and is asked for followers."""

from __future__ import annotations

import itertools
import logging
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from amqp_routing import Topology
from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import AmqpTasksError, BrokerConnectionError, BrokerOperationError
from amqp_tasks.events._event import EVENTS_NAME, TaskEvent, event_message, events_exchange
from amqp_tasks.events._follower import Follower
from amqp_tasks.transport import TopologyMode

if TYPE_CHECKING:
    from amqp_tasks.errors import PublishError
    from amqp_tasks.transport import Transport

__all__ = ("Events",)

logger = logging.getLogger(__name__)

_MAX_TOLD = 10_000
_DECLARE_TIMEOUT = 5.0
_PUBLISH_TIMEOUT = 5.0
"""What the broker does not take by then is dropped: the next event is newer."""
_PAUSE = 10.0
"""Seconds until it is tried again after the exchange could not be had."""
_REFUSED = 403


class Events:
    """The events of one process; see `docs/explanation/progress.md`.

    1. Constructing does nothing. 2. The first `tell` sees to it that the exchange is there. 3. Each `tell` hands a message over and
    returns. What goes wrong is told once, and never to the task.

    Thread safety: any thread. Fields are written by any; a race only asks the broker twice.

    Args:
        transport: publishes.
        mode: whether the exchange may be declared.
        clock: time.
    """

    def __init__(self, transport: Transport, mode: TopologyMode, clock: Clock = SYSTEM_CLOCK) -> None:
        self._transport, self._mode, self._clock = transport, mode, clock
        # Ids of tasks that something was told of and whose end was not; the oldest leave first. Each change of it is one step of
        # the interpreter, so that it needs no lock.
        self._told: OrderedDict[str, None] = OrderedDict()
        self._count = itertools.count(1)
        self._is_declared = False
        self._not_before = 0.0
        self._has_warned = False

    def follow(self, task_id: str) -> Follower:
        """What is told of a task from now on; a context."""
        return Follower(self._transport, task_id)

    def has_told(self, task_id: str) -> bool:
        """Whether something was told here of a task that has not ended."""
        return task_id in self._told

    def tell(self, kind: str, task_id: str, hostname: str, **fields: Any) -> None:
        """Tell something of a task. The first one waits for the broker, some seconds at most; raises nothing."""
        if task_id not in self._told:
            if len(self._told) >= _MAX_TOLD:
                self._told.popitem(last=False)
            self._told[task_id] = None
        if self._is_there():
            self._publish(kind, task_id, hostname, fields)

    def end(self, kind: str, task_id: str, hostname: str, **fields: Any) -> None:
        """Tell how a task has ended, if something was told of it before. Waits for nothing, raises nothing."""
        if task_id in self._told:
            self._told.pop(task_id, None)
            if self._is_declared:
                self._publish(kind, task_id, hostname, fields)

    @property
    def is_ready(self) -> bool:
        """Whether telling waits for nothing."""
        return self._is_declared

    def tell_death(self, task_id: str, hostname: str, *, exception: str, **fields: Any) -> None:
        """Tell that a task lies among the dead letters and has failed, whether or not anything was told of it before.

        Waits for the broker unless `is_ready`, some seconds at most, and so not on the I/O thread; raises nothing.
        """
        self._told.pop(task_id, None)
        if self._is_there():
            self._publish("task-dead", task_id, hostname, fields)
            self._publish("task-failed", task_id, hostname, {"exception": exception})

    def _publish(self, kind: str, task_id: str, hostname: str, fields: dict[str, Any]) -> None:
        event = TaskEvent(
            type=kind, task_id=task_id, hostname=hostname, time=self._clock.now().timestamp(), fields=fields
        )
        try:
            message = event_message(event, {"pid": os.getpid(), "clock": next(self._count)})
            self._transport.publish_nowait(message, self._on_outcome, timeout=_PUBLISH_TIMEOUT)
        except AmqpTasksError as exc:
            logger.debug("an event is not sent: %s", exc, extra={"action": "events"})

    def _on_outcome(self, error: PublishError | None) -> None:
        """On the I/O thread."""
        if error is None:
            return
        if isinstance(error.__cause__, BrokerOperationError):
            self._go_without(error.__cause__)
        else:
            logger.debug("an event is lost: %s", error, extra={"action": "events"})

    def _is_there(self) -> bool:
        if self._is_declared:
            return True
        if self._clock.monotonic() < self._not_before:
            return False
        # Other slots go without while this one asks.
        self._not_before = self._clock.monotonic() + _PAUSE
        # Where nothing is to be declared, it is asked for all the same: a message to an exchange that is not there closes the
        # channel, and what is on its way there, dead letters and retries, too, is sent again.
        mode = TopologyMode.CHECK if self._mode is TopologyMode.NONE else self._mode
        try:
            self._transport.ensure_topology(
                Topology(exchanges=(events_exchange(),)), mode=mode, timeout=_DECLARE_TIMEOUT
            )
        except BrokerConnectionError as exc:
            logger.debug("events wait for the broker: %s", exc, extra={"action": "events"})
            return False
        except AmqpTasksError as exc:
            self._go_without(exc)
            return False
        self._is_declared = True
        return True

    def _go_without(self, error: Exception) -> None:
        # A refusal closes the channel, and what is on its way there is sent again: so not a second time.
        refused = isinstance(error, BrokerOperationError) and error.reply_code == _REFUSED
        self._is_declared, self._not_before = (
            False,
            self._clock.monotonic() + (float("inf") if refused else _PAUSE),
        )
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "progress is told to callers only and dead letters to nobody, as the exchange %r cannot be used (run `amqp-tasks topology apply`, and"
                " let the worker's user write to it): %s",
                EVENTS_NAME, error, extra={"action": "events"},
            )  # fmt: skip
