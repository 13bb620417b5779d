"""One line per fault: what, expected, got, remedy. Values are masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from amqp_tasks.settings._base import Section
from amqp_tasks.settings._broker import TlsOptions
from amqp_tasks.settings._models import FIELDS, SettingField
from amqp_tasks.settings._names import did_you_mean
from amqp_tasks.settings._secrets import mask_secrets
from amqp_tasks.settings._sources import Given
from amqp_tasks.settings._task import PublishRetryPolicy

__all__ = ("default_of", "faulty_name", "line", "shown")

SECRET_SETTINGS = frozenset(
    {"broker_url", "broker_use_ssl", "result_backend", "security_signing_keys", "task_idempotency_store"}
)
"""Settings whose values hold passwords or keys: a wrong one is told by its type only."""
_MAX_SHOWN = 80

_PLAIN = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "True or False",
    "bool_type": "True or False",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_NESTED: dict[str, type[Section]] = {
    "task_publish_retry_policy": PublishRetryPolicy,
    "broker_use_ssl": TlsOptions,
}


def _field_of(error: ErrorDetails) -> SettingField:
    section, name = error["loc"][:2]
    return next(field for field in FIELDS.values() if (field.section, field.name) == (section, name))


def faulty_name(error: ErrorDetails) -> str:
    """The flat name of the setting that an error of pydantic's is about."""
    return _field_of(error).flat_name


def line(error: ErrorDetails, given: Mapping[str, Given]) -> str:
    """One fault of one value, told from an error of pydantic's."""
    flat_name = faulty_name(error)
    source = given[flat_name]
    where = flat_name + "".join(f"[{part!r}]" for part in error["loc"][2:] if part != "[key]")
    is_renamed = source.written_as not in (flat_name, source.origin.source)
    written = f", written as {source.written_as}" if is_renamed else ""
    return f"{where}: {_told(error, flat_name)} [{source.origin}{written}]"


def _told(error: ErrorDetails, flat_name: str) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_option(str(error["loc"][-1]), flat_name)
    if error["type"] in ("fault", "unsupported_transport"):
        return str(error.get("ctx", {}).get("text"))
    wanted, _, remedy = _expected(error).partition("; ")
    remedy = remedy or f"remove it for the default {shown(default_of(flat_name))}"
    return f"expected {wanted}, got {_got(error['input'], flat_name)}; {remedy}"


def _unknown_option(name: str, flat_name: str) -> str:
    options = _NESTED[flat_name].model_fields
    near = did_you_mean(name, options)
    hint = f", did you mean {near!r}?" if near else f"; known are {', '.join(options)}"
    return f"unknown option {name!r}{hint}"


def _expected(error: ErrorDetails) -> str:
    context: dict[str, Any] = error.get("ctx") or {}
    match error["type"]:
        case "expected":
            return str(context["text"])
        case "literal_error":
            return f"one of {context['expected']}".replace(" or ", ", ")
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "less_than_equal":
            return f"at most {context['le']:g}"
        case "string_too_long":
            return f"at most {context['max_length']} characters"
        case kind:
            return _PLAIN.get(kind) or error["msg"].removeprefix("Input should be ")


def _got(value: object, flat_name: str) -> str:
    if flat_name in SECRET_SETTINGS:
        return f"a value of type {type(value).__name__}"
    return shown(value)


def default_of(flat_name: str) -> object:
    """The default of a setting."""
    return FIELDS[flat_name].info.get_default(call_default_factory=True)


def shown(value: object) -> str:
    """A value for people: masked, on one line, and cut."""
    text = mask_secrets(repr(value))
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
