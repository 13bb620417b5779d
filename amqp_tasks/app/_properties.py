"""What becomes of a call's options that are AMQP properties or points in time."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from amqp_tasks.app._options import CallOptions
from amqp_tasks.message import FURTHER_PROPERTIES, check_further_properties

__all__ = ("aware", "further_options")


def further_options(options: CallOptions, timezone: tzinfo) -> dict[str, Any]:
    """The AMQP properties that a call gives, as they go into its message.

    Raises:
        ValueError: one that AMQP cannot hold.
    """
    given = {name: value for name in FURTHER_PROPERTIES if (value := options.get(name)) is not None}
    if isinstance(timestamp := given.get("timestamp"), datetime):
        given["timestamp"] = aware(timestamp, timezone)
    return check_further_properties(given)


def aware(time: datetime, timezone: tzinfo) -> datetime:
    """A naive time is meant as the app's clocks show it, as Celery has it."""
    return time.replace(tzinfo=timezone) if time.tzinfo is None else time
