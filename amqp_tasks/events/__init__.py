"""Events: what running tasks tell of themselves to anybody who listens; see `docs/explanation/progress.md`."""

from __future__ import annotations

from amqp_tasks.events._event import ENDS, EVENTS_NAME, TaskEvent, events_exchange
from amqp_tasks.events._events import Events
from amqp_tasks.events._follower import Follower

__all__ = ("ENDS", "EVENTS_NAME", "Events", "Follower", "TaskEvent", "events_exchange")
