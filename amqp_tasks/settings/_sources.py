"""Where settings come from: config objects, the environment, plain mappings; their names read, values untouched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, cast

from amqp_tasks.settings._names import ALIASES, UNSUPPORTED, did_you_mean, old_names

__all__ = (
    "ENVIRONMENT_PREFIX",
    "Given",
    "Level",
    "Origin",
    "Reading",
    "read_environment",
    "read_items",
)

ENVIRONMENT_PREFIX = "AMQP_TASKS_"
CONTROL_VARIABLES = ("AMQP_TASKS_APP", "AMQP_TASKS_COMPLETE", "AMQP_TASKS_MANAGEMENT_URL")
"""Variables with our prefix that are no settings."""
CONTROL_PREFIXES = ("AMQP_TASKS_TEST_", "AMQP_TASKS_BENCH_")
_OLD_LOOK = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")


class Level(StrEnum):
    """Where a value comes from; the first wins."""

    ARGUMENT = "argument"
    ENVIRONMENT = "environment"
    CONFIG = "config"
    ADDED_DEFAULT = "added default"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value comes from.

    Attributes:
        level: the kind of source.
        source: the environment variable, or the name of the config module or class; may be empty.
    """

    level: Level
    source: str = ""

    def __str__(self) -> str:
        return f"{self.level.value} {self.source}".strip()


@dataclass(frozen=True, slots=True)
class Given:
    """One value as a source gave it. Not shown by repr, as it may be a secret."""

    value: Any = field(repr=False)
    origin: Origin
    written_as: str


@dataclass(slots=True)
class Reading:
    """What one source says, by today's names, and what is wrong with its names."""

    given: dict[str, Given] = field(default_factory=dict[str, Given])
    faults: list[str] = field(default_factory=list[str])


@lru_cache(maxsize=1)
def _old_names(known: frozenset[str]) -> Mapping[str, str]:
    return old_names(known)


class _Reader:
    """Sorts the names of one source into known, foreign and wrong ones."""

    def __init__(self, origin: Origin, known: frozenset[str], *, is_explicit: bool) -> None:
        self._origin = origin
        self._known = known
        self._is_explicit = is_explicit
        self._old = _old_names(known)
        self._reading = Reading()
        self._styles: dict[str, list[str]] = {"old": [], "new": []}

    def read(self, items: Mapping[str, object], namespace: str | None) -> Reading:
        for name, value in items.items():
            flat_name = self._in_namespace(name, namespace) if namespace else self._by_style(name)
            if flat_name is not None:
                self._take(flat_name, name, value)
        if self._styles["old"] and self._styles["new"]:
            self._fault(_mixed(self._styles["old"], self._styles["new"], self._old))
        return self._reading

    def _by_style(self, name: str) -> str | None:
        if self._is_foreign(name):
            return None
        if self._is_name(name):
            self._styles["new"].append(name)
            return name
        if name in self._old:
            self._styles["old"].append(name)
            return self._old[name]
        if name.startswith("CELERY_") and self._is_name(name.removeprefix("CELERY_").lower()):
            self._fault(
                f"{name} is a name of Django style; pass namespace='CELERY' to config_from_object, "
                f"or write {name.removeprefix('CELERY_').lower()}"
            )
        else:
            self._unknown(name, self._old if name.isupper() else self._known)
        return None

    def _is_foreign(self, name: str) -> bool:
        """Whether this is a constant of Django's or of the user's, who shares the module with us."""
        if self._is_explicit or not name.isupper() or name.startswith(_OLD_LOOK):
            return False
        # Such as S3_BUCKET: once a setting of Celery's, never of ours.
        return self._old.get(name, "") not in self._known

    def _in_namespace(self, name: str, namespace: str) -> str | None:
        prefix = namespace.rstrip("_") + "_"
        is_ours = name.startswith(prefix)
        flat_name = name.removeprefix(prefix).lower()
        if is_ours and self._is_name(flat_name):
            return flat_name
        if name in self._old and not self._is_foreign(name):
            self._fault(
                f"{name} is an old name; with namespace={namespace!r} write {prefix}{self._old[name].upper()}"
            )
        elif is_ours:
            self._unknown(name, [prefix + known.upper() for known in self._known])
        return None

    def _take(self, flat_name: str, written_as: str, value: object) -> None:
        if _is_needless(flat_name, value):
            return
        if flat_name in UNSUPPORTED:
            said = f" (written as {written_as})" if written_as != flat_name else ""
            self._fault(f"{flat_name}{said}: {UNSUPPORTED[flat_name]}")
            return
        flat_name = ALIASES.get(flat_name, flat_name)
        earlier = self._reading.given.get(flat_name)
        if earlier is not None:
            self._fault(f"{earlier.written_as} and {written_as} are the same setting; keep one of them")
            return
        self._reading.given[flat_name] = Given(value, self._origin, written_as)

    def _is_name(self, name: str) -> bool:
        return name in self._known or name in ALIASES or name in UNSUPPORTED

    def _unknown(self, name: str, names: Iterable[str]) -> None:
        near = did_you_mean(name, names)
        now = f" (today {self._old[near]!r})" if near is not None and near in self._old else ""
        if near is not None:
            self._fault(f"unknown setting {name!r}, did you mean {near!r}{now}?")
        elif self._is_explicit:
            self._fault(
                f"unknown setting {name!r}; remove it, or see the reference of settings for all names"
            )
        else:
            self._fault(f"unknown setting {name!r}; if it is not meant as one, begin its name with '_'")

    def _fault(self, text: str) -> None:
        self._reading.faults.append(f"{text} [{self._origin}]")


def _mixed(old: list[str], new: list[str], table: Mapping[str, str]) -> str:
    renamed = ", ".join(f"{name} → {table[name]}" for name in old)
    return f"old and new names are mixed: {', '.join(old)} with {', '.join(new)}; use one style, best the new one: {renamed}"


def _is_needless(flat_name: str, value: object) -> bool:
    """Whether this is a setting of Celery's that asks for what is always so here."""
    if flat_name == "task_protocol":
        return value == 2
    if flat_name == "worker_enable_soft_shutdown_on_idle":
        # An idle worker hands back what it holds for later and ends at once: either wish is met.
        return isinstance(value, bool)
    return (
        flat_name == "broker_transport_options"
        and isinstance(value, Mapping)
        and set(cast("Mapping[object, object]", value)) <= {"confirm_publish"}
    )


def read_items(
    items: Mapping[str, object],
    origin: Origin,
    known: frozenset[str],
    *,
    namespace: str | None,
    is_explicit: bool,
) -> Reading:
    """What `items` say.

    Args:
        items: names as written, and values.
        origin: said in faults and kept with the values.
        known: today's names of all settings.
        namespace: the prefix of Django style; only names with it count then.
        is_explicit: whether every name is meant as a setting (a dict, keyword arguments), so that upper-case ones that
            are none are faults, too.
    """
    return _Reader(origin, known, is_explicit=is_explicit).read(items, namespace)


def read_environment(
    environ: Mapping[str, str], known: frozenset[str], containers: frozenset[str]
) -> Reading:
    """What the variables `AMQP_TASKS_<SETTING>` say; JSON where the text begins with `[`, `{` or `"`.

    Args:
        environ: the environment.
        known: today's names of all settings.
        containers: those of lists and mappings, for which a text that begins like JSON and is none is a fault.
    """
    reading = Reading()
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or _is_control(variable):
            continue
        origin = Origin(Level.ENVIRONMENT, variable)
        written = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        name = ALIASES.get(written, written)
        if name in known:
            try:
                value = _environment_value(environ[variable], is_container=name in containers)
            except ValueError as exc:
                reading.faults.append(f"{name}: {exc} [{origin}]")
            else:
                reading.given[name] = Given(value, origin, variable)
        elif name in UNSUPPORTED:
            reading.faults.append(f"{variable}: {UNSUPPORTED[name]}")
        else:
            reading.faults.append(_unknown_variable(variable, known))
    return reading


def _is_control(variable: str) -> bool:
    return variable in CONTROL_VARIABLES or variable.startswith(CONTROL_PREFIXES)


def _unknown_variable(variable: str, known: frozenset[str]) -> str:
    # Compared without the prefix, which would make everything look near.
    names = [name.upper() for name in known]
    names += [name.removeprefix(ENVIRONMENT_PREFIX) for name in CONTROL_VARIABLES]
    near = did_you_mean(variable.removeprefix(ENVIRONMENT_PREFIX), names)
    hint = f", did you mean {ENVIRONMENT_PREFIX}{near}?" if near else "; unset it"
    return f"unknown setting in the environment: {variable}{hint}"


def _environment_value(text: str, *, is_container: bool) -> object:
    """What a text stands for.

    Raises:
        ValueError: it begins like a list or mapping, which its setting is, and is no JSON. The error does not show it, as it
            may hold a password.
    """
    stripped = text.strip()
    if stripped.lower() in ("null", "none"):
        return None
    if stripped[:1] not in ("[", "{", '"'):
        return stripped
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError) as exc:
        if is_container and stripped[0] != '"':
            raise ValueError(
                f"expected JSON, as the text begins with {stripped[0]!r}: {exc}; write texts in double quotes"
            ) from exc
        return text  # the field's own type says what was expected
