"""Stamps: names and values that a caller puts on the tasks of a workflow, in Celery's headers for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message._amqp import HeaderValue
from amqp_tasks.message._headers import check_short, is_table_value

__all__ = (
    "StampValue",
    "check_stamps",
    "has_stamp",
    "plain_stamp",
    "read_stamps",
    "stamp_headers",
    "stamp_values",
)

StampValue: TypeAlias = str | int | float | bool
_SCALARS = (str, int, float)  # a bool is an int


def check_stamps(stamps: Mapping[str, Any]) -> None:
    """Refuse what cannot be a stamp.

    Raises:
        ConfigurationError: a name that is no short text, or a value that is no text, number or boolean, or list of these.
    """
    for name, value in stamps.items():
        check_short(name, "stamp's name")
        values = stamp_values(value)
        if not all(isinstance(item, _SCALARS) and is_table_value(item) for item in values):
            raise ConfigurationError(
                f"stamp {name!r:.80} must be text, a number, True or False, or a list of these, got {value!r:.80}"
            )


def stamp_values(value: Any) -> list[Any]:
    """The values of a stamp, which may be one or a list."""
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def stamp_headers(stamps: Mapping[str, Any]) -> dict[str, HeaderValue]:
    """The protocol's headers for them. Values may be any that a message had, as other systems' clients stamp, too.

    Raises:
        ConfigurationError: a name or value that no header can have.
    """
    for name, value in stamps.items():
        check_short(name, "stamp's name")
        if not is_table_value(value):
            raise ConfigurationError(f"stamp {name!r:.80} cannot be in a header: {value!r:.80}")
    return {"stamped_headers": list(stamps), "stamps": dict(stamps)}


def plain_stamp(value: Any) -> Any:
    """The value as JSON and headers hold it: several in a list."""
    return list(value) if isinstance(value, tuple | set | frozenset) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def read_stamps(headers: Mapping[str, HeaderValue]) -> dict[str, Any]:
    """The stamps of a received message; what is not well formed is passed over."""
    names: Any = headers.get("stamped_headers")
    stamps: Any = headers.get("stamps")
    if not names or not isinstance(names, list) or not isinstance(stamps, dict):
        return {}
    found: dict[str, Any] = stamps  # pyright: ignore[reportUnknownVariableType]
    return {name: found[name] for name in names if isinstance(name, str) and name in found}  # pyright: ignore[reportUnknownVariableType]


def has_stamp(headers: Mapping[str, HeaderValue], is_wanted: Callable[[tuple[str, Any]], bool]) -> bool:
    """Whether a message has a stamp, a name with a value, that is wanted."""
    if not headers.get("stamped_headers"):
        return False
    return any(
        isinstance(each, _SCALARS) and is_wanted((name, each))
        for name, value in read_stamps(headers).items()
        for each in stamp_values(value)
    )
