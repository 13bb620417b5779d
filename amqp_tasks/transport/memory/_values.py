"""Properties as they would arrive over the wire: copied, and with the types that AMQP field tables keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from amqp_tasks.errors import EncodeError
from amqp_tasks.message import HeaderValue, Properties

__all__ = ("as_received",)

MAX_LONG = 2**63


def as_received(properties: Properties) -> Properties:
    """A copy that shares nothing changeable, template and own headers merged.

    Raises:
        EncodeError: a header that no AMQP field table holds; names it.
    """
    headers = {key: _value(value, f"headers[{key!r}]") for key, value in properties.all_headers().items()}
    return replace(properties, headers=headers, template=None)


def _value(value: object, path: str) -> HeaderValue:
    match value:
        case None | bool() | float() | Decimal():
            return value
        case str():
            return str.__str__(value)  # of an enumeration, its value
        case int() if -MAX_LONG <= value < MAX_LONG:
            return int(value)
        case bytes() | bytearray():
            return bytes(value)
        case datetime():
            aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).replace(microsecond=0)
        case list() | tuple():
            items = cast("list[Any]", value)
            return [_value(item, f"{path}[{index}]") for index, item in enumerate(items)]
        case Mapping():
            table = cast("Mapping[str, Any]", value)
            return {str(key): _value(item, f"{path}[{key!r}]") for key, item in table.items()}
        case _:
            raise EncodeError(f"{path} is {type(value).__name__}, which an AMQP field table does not hold")
