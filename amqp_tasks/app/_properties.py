"""What becomes of a call's options that are AMQP properties or points in time."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from amqp_tasks.app._options import CallOptions
from amqp_tasks.message import FURTHER_PROPERTIES, check_further_properties, new_task_id

__all__ = ("aware", "further_options")


def further_options(options: CallOptions, timezone: tzinfo) -> dict[str, Any]:
    """The AMQP properties that a call gives, as they go into its message.

    A task id of the caller's own may come again, in another message: such a call has a `message_id`, by which a worker tells what
    it has finished with from what it is yet to run.

    Raises:
        ValueError: one that AMQP cannot hold.
    """
    given = {name: value for name in FURTHER_PROPERTIES if (value := options.get(name)) is not None}
    if isinstance(timestamp := given.get("timestamp"), datetime):
        given["timestamp"] = aware(timestamp, timezone)
    if options.get("task_id") is not None:
        given.setdefault("message_id", new_task_id())
    return check_further_properties(given)


def aware(time: datetime, timezone: tzinfo) -> datetime:
    """A naive time is meant as the app's clocks show it, as Celery has it."""
    return time.replace(tzinfo=timezone) if time.tzinfo is None else time
