"""What the sections of the settings have in common: the model's rules and the types of the fields."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from amqp_tasks.clock import MAX_SECONDS

__all__ = (
    "Count",
    "Names",
    "PositiveSeconds",
    "Seconds",
    "Section",
    "SerializerName",
    "expected",
    "fault",
    "no_bool",
    "split_text",
)

SERIALIZERS = ("json", "msgpack", "yaml")
CONTENT_TYPES = {
    "application/json": "json",
    "application/x-msgpack": "msgpack",
    "application/x-yaml": "yaml",
    "application/x-python-serialize": "pickle",
}
_REFUSED_SERIALIZERS = {
    "pickle": "pickle is refused by design, as reading it runs code of whoever wrote the message",
    "binary": "there is no serializer 'binary' (some texts use it for pickle, which is refused by design)",
    "xml": "there is no serializer 'xml'",
}


class Section(BaseModel):
    """One concern's settings: frozen, and unknown names are faults."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
        allow_inf_nan=False,
    )


def expected(text: str) -> PydanticCustomError:
    """A fault in one field: `text` continues "expected …" and may give the remedy after a semicolon."""
    # Braces would be read as places to fill in.
    return PydanticCustomError("expected", "{text}", {"text": text})


def fault(text: str, kind: Literal["fault", "unsupported_transport"] = "fault") -> PydanticCustomError:
    """A fault in one field, told in full by `text`, remedy included."""
    return PydanticCustomError(kind, "{text}", {"text": text})


def _seconds(value: object) -> object:
    if isinstance(value, bool):
        raise expected("a number of seconds")
    return value.total_seconds() if isinstance(value, timedelta) else value


def _countable(seconds: float) -> float:
    if seconds > MAX_SECONDS:
        raise expected(f"at most a century ({MAX_SECONDS} seconds)")
    return seconds


def split_text(value: object) -> object:
    """A text with commas as the tuple of its parts, anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _names(value: object) -> object:
    return () if value is None else split_text(value)


def _serializer(value: object) -> str:
    listed = ", ".join(map(repr, SERIALIZERS))
    if not isinstance(value, str):
        raise expected(f"one of {listed}")
    name = CONTENT_TYPES.get(value, value)
    if name in SERIALIZERS:
        return name
    if name in _REFUSED_SERIALIZERS:
        raise expected(f"one of {listed}; {_REFUSED_SERIALIZERS[name]}: use 'json', or 'msgpack' for bytes")
    raise expected(f"one of {listed}")


def no_bool(value: object) -> object:
    """Refuse True and False where a number is wanted; pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise expected("a whole number")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0), AfterValidator(_countable)]
PositiveSeconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), AfterValidator(_countable)]
Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
SerializerName = Annotated[str, BeforeValidator(_serializer)]
