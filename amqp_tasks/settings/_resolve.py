"""From what all sources say to `Settings`, or to every fault there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from amqp_tasks.errors import SettingsError, UnsupportedTransport
from amqp_tasks.settings._checks import clashes
from amqp_tasks.settings._faults import faulty_name, line
from amqp_tasks.settings._models import FIELDS, Settings, section_values
from amqp_tasks.settings._sources import Given, Reading

__all__ = ("KNOWN", "Outcome", "merge", "validate")

KNOWN = frozenset(FIELDS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Valid settings, or what is wrong.

    Attributes:
        settings: None when there are faults.
        faults: a line each.
        is_scheme_only: the one fault is a broker URL of a scheme nobody serves.
    """

    settings: Settings | None = field(repr=False)
    faults: tuple[str, ...] = ()
    is_scheme_only: bool = False

    @property
    def error(self) -> SettingsError | UnsupportedTransport:
        """The error that tells the faults."""
        return UnsupportedTransport(self.faults[0]) if self.is_scheme_only else SettingsError(self.faults)


def merge(readings: Iterable[Reading]) -> Reading:
    """One reading of several; the first that has a setting wins."""
    merged = Reading()
    for reading in readings:
        merged.given = {**reading.given, **merged.given}
        merged.faults += reading.faults
    return merged


def validate(reading: Reading, *, is_all: bool = True) -> Outcome:
    """Settings from a reading, with all faults of names, of values and of combinations.

    Args:
        reading: what the sources say.
        is_all: False: more may be given elsewhere, so that a combination counts only if all of its settings are here.
    """
    values: dict[str, Any] = {name: given.value for name, given in reading.given.items()}
    errors = _errors(values)
    faulty = {faulty_name(error) for error in errors}
    lines = [*reading.faults, *(line(error, reading.given) for error in errors)]
    settings = _built({name: value for name, value in values.items() if name not in faulty})
    lines += [
        f"{clash.text} [{_origins(clash.names, reading.given)}]"
        for clash in clashes(settings)
        if faulty.isdisjoint(clash.names) and (is_all or values.keys() >= set(clash.names))
    ]
    if lines:
        is_scheme = len(lines) == 1 and any(error["type"] == "unsupported_transport" for error in errors)
        return Outcome(None, tuple(dict.fromkeys(lines)), is_scheme)
    return Outcome(_with_url_options(settings))


def _errors(values: dict[str, Any]) -> list[ErrorDetails]:
    try:
        Settings.model_validate(section_values(values))
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
    else:
        return []
    # A list whose items are all wrong counts as empty as well; that would be the same fault told twice.
    items = {error["loc"][:2] for error in errors if len(error["loc"]) > 2}
    return [error for error in errors if error["type"] != "too_short" or error["loc"][:2] not in items]


def _built(values: dict[str, Any]) -> Settings:
    return Settings.model_validate(section_values(values))


def _origins(names: tuple[str, ...], given: Mapping[str, Given]) -> str:
    said = dict.fromkeys(str(given[name].origin) if name in given else "default" for name in names)
    return ", ".join(said)


def _with_url_options(settings: Settings) -> Settings:
    """`?heartbeat=` and `?connection_timeout=` in the URL, which all URLs have alike, win over the settings."""
    url = settings.broker.url[0]
    options = {"heartbeat": url.heartbeat, "connection_timeout": url.connection_timeout}
    changed = {name: value for name, value in options.items() if value is not None}
    if not changed:
        return settings
    return settings.model_copy(update={"broker": settings.broker.model_copy(update=changed)})
