"""Values of settings as plain data, for people and for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel

from amqp_tasks.settings._secrets import MASK, Secret, mask_secrets
from amqp_tasks.settings._security import SigningKey
from amqp_tasks.settings._url import BrokerUrl, ResultUrl

__all__ = ("plain",)


def plain(value: object, *, masked: bool) -> Any:
    """`value` made of texts, numbers, lists and dicts; what is neither becomes its dotted name or its repr."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return mask_secrets(value) if masked else value
        case Secret():
            return MASK if masked else value.get_secret_value()
        case BrokerUrl() | ResultUrl() | SigningKey():
            return value.masked if masked else value.reveal()
        case BaseModel():
            return {name: plain(getattr(value, name), masked=masked) for name in type(value).model_fields}
        case Mapping():
            return {
                str(key): plain(item, masked=masked)
                for key, item in cast("Mapping[object, object]", value).items()
            }
        case list() | tuple() | set() | frozenset():
            return [plain(item, masked=masked) for item in cast("Iterable[object]", value)]
        case _:
            return _name(value)


def _name(value: object) -> str:
    if isinstance(value, type) or callable(value):
        return (
            f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        )
    return mask_secrets(repr(value))
