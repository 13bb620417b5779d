"""Checks that exchanges, queues and bindings share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from amqp_routing._errors import DeclarationError
from amqp_routing._table import MAX_SHORT_STRING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ("enum_member", "key_faults", "name_faults", "short_repr")

E = TypeVar("E", bound=StrEnum)


def enum_member(enum: type[E], value: str, *, subject: str, field_name: str) -> E:
    """The member for a member or its text, so that `type="quorum"` from a file works too.

    Raises:
        DeclarationError: there is no such member.
    """
    try:
        return enum(value)
    except ValueError as exc:
        known = [member.value for member in enum]
        near = get_close_matches(str(value), known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        fault = f"{field_name} is {value!r}, expected one of {', '.join(known)}{hint}"
        raise DeclarationError(subject, (fault,)) from exc


def name_faults(name: str) -> Iterator[str]:
    """What is wrong with the name of an exchange or queue."""
    if not name:
        yield "the name is empty; give one (names made by the broker cannot be planned)"
    yield from _text_faults(name, "the name")
    if name.startswith("amq."):
        yield "names that begin with 'amq.' belong to the broker; choose another"
    if "\r" in name or "\n" in name:
        # The broker removes them and answers with another name than was asked for.
        yield "the name has a line break, which RabbitMQ removes; leave it out"


def key_faults(routing_key: str) -> Iterator[str]:
    """What is wrong with a routing key."""
    yield from _text_faults(routing_key, "the routing key")


def _text_faults(text: str, what: str) -> Iterator[str]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
        yield f"{what} is longer than {MAX_SHORT_STRING} bytes; shorten it"
    if any("\ud800" <= character <= "\udfff" for character in text):
        yield f"{what} holds a lone surrogate and cannot be written as UTF-8"


def short_repr(value: DataclassInstance) -> str:
    """The repr of a dataclass instance without what has its default; the first field is positional."""
    first, *others = fields(value)
    shown = [repr(getattr(value, first.name))]
    shown += [f"{f.name}={getattr(value, f.name)!r}" for f in others if getattr(value, f.name) != _default(f)]
    return f"{type(value).__name__}({', '.join(shown)})"


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
