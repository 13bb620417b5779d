"""AMQP properties that a caller may set and the task protocol leaves alone."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message._amqp import Properties
from amqp_tasks.message._headers import check_short

__all__ = ("FURTHER_PROPERTIES", "check_further_properties", "further_properties")

FURTHER_PROPERTIES = ("message_id", "app_id", "type", "user_id", "timestamp")
"""Names of `Properties` that mean nothing to the task protocol."""
_MAX_TIMESTAMP = 2**63 - 1


def further_properties(properties: Properties) -> dict[str, Any]:
    """Those that a message has."""
    return {name: value for name in FURTHER_PROPERTIES if (value := getattr(properties, name)) is not None}


def check_further_properties(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` as it goes into `Properties`: a `timestamp` in whole seconds since 1970.

    Raises:
        ConfigurationError: text that is empty or longer than 255 bytes, or a timestamp before 1970.
    """
    return {
        name: _seconds(value) if name == "timestamp" else check_short(value, name)
        for name, value in given.items()
    }


def _seconds(timestamp: int | datetime) -> int:
    seconds = timegm(timestamp.utctimetuple()) if isinstance(timestamp, datetime) else timestamp
    if not 0 <= seconds <= _MAX_TIMESTAMP:
        raise ConfigurationError(f"timestamp must be a time since 1970, got {timestamp!r}")
    return seconds
