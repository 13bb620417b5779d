"""What all sources of an app's settings say, each read and put in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.settings._load import load_source
from amqp_tasks.settings._models import CONTAINERS
from amqp_tasks.settings._resolve import KNOWN, Outcome, merge, validate
from amqp_tasks.settings._sources import Level, Origin, Reading, read_environment, read_items

__all__ = ("ConfigSource", "Defaults", "Gathered", "check_written", "gather")

ConfigSource = tuple[object, str | None]
"""A config object, or its name, and its namespace."""
Defaults = Mapping[str, object] | Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the sources say, and the exception that kept a config object from being loaded, if one did."""

    reading: Reading
    cause: BaseException | None


def gather(
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    configs: Sequence[ConfigSource],
    added_defaults: Sequence[Defaults],
    *,
    loading: set[int],
) -> Gathered:
    """Read every source; the last config object and the last added defaults win among their kind.

    Args:
        arguments: in the order in which they were written.
        environ: the environment.
        configs: in the order in which they were given.
        added_defaults: in the order in which they were given.
        loading: identifiers of the threads that are loading this app's config objects; changed in place.

    Raises:
        ConfigurationError: this thread is loading one of them already.
    """
    loaded = [_read_config(source, namespace, loading) for source, namespace in reversed(configs)]
    readings = [
        _read_arguments(arguments),
        read_environment(environ, KNOWN, CONTAINERS),
        *(config.reading for config in loaded),
        *(_read_defaults(defaults) for defaults in reversed(added_defaults)),
    ]
    return Gathered(merge(readings), _first(config.cause for config in loaded))


def check_written(arguments: Mapping[str, object]) -> Outcome:
    """What is wrong with one write of arguments by itself; its settings are not those of the app."""
    reading = _read_arguments(arguments)
    reading.faults[:0] = _mixed_styles(arguments)
    return validate(reading, is_all=False)


def _mixed_styles(names: Iterable[str]) -> list[str]:
    names = tuple(names)
    upper = [name for name in names if name.isupper()]
    lower = [name for name in names if not name.isupper()]
    if not upper or not lower:
        return []
    return [
        f"old and new names are mixed: {', '.join(upper)} with {', '.join(lower)}; use one style, best the new"
    ]


def _first(causes: Iterable[BaseException | None]) -> BaseException | None:
    return next((cause for cause in causes if cause is not None), None)


def _read_config(source: object, namespace: str | None, loading: set[int]) -> Gathered:
    thread = threading.get_ident()
    if thread in loading:
        # The module is being imported by this very thread: half of it would be taken for all of it.
        raise ConfigurationError(
            "a setting was read while the config module is being imported: a config module must not use the app"
        )
    loading.add(thread)
    try:
        label, items, is_explicit = load_source(source)
    except ConfigurationError as exc:
        return Gathered(Reading(faults=[str(exc)]), exc.__cause__)
    finally:
        loading.discard(thread)
    origin = Origin(Level.CONFIG, label)
    return Gathered(read_items(items, origin, KNOWN, namespace=namespace, is_explicit=is_explicit), None)


def _read_arguments(arguments: Mapping[str, object]) -> Reading:
    origin, reading = Origin(Level.ARGUMENT), Reading()
    for name, value in arguments.items():
        one = read_items({name: value}, origin, KNOWN, namespace=None, is_explicit=True)
        reading.given |= one.given  # the last write wins, under whichever name
        reading.faults += one.faults
    return reading


def _read_defaults(defaults: Defaults) -> Reading:
    items = defaults() if callable(defaults) else defaults
    return read_items(items, Origin(Level.ADDED_DEFAULT), KNOWN, namespace=None, is_explicit=True)
