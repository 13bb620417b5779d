"""`Conf`: what `app.conf` is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from amqp_tasks.settings._at_once import is_right
from amqp_tasks.settings._written import Written

if TYPE_CHECKING:
    from amqp_tasks.settings._gather import ConfigSource, Defaults, Gathered
    from amqp_tasks.settings._models import Settings
    from amqp_tasks.settings._sources import Origin

__all__ = ("Conf",)


class Conf:
    """An app's configuration: every setting as an attribute and as an item, from all sources.

    Of several sources the first wins: argument (`App(…)`, `conf.update`, `conf.x = …`; the last of these),
    environment (`AMQP_TASKS_<SETTING>`), config object, added default, default.

    1. Writing an argument checks its name and its value, together with what else the same write sets; a refused write
       changes nothing. Config objects and added defaults are only noted.
    2. The first read loads the config objects, reads the environment and validates everything, combinations of settings
       included, and raises with all faults at once.
    3. Further reads are answered from that, until something is written. The environment and the config objects are
       then read again.

    Thread safety: any thread may read and write. Two threads may both do the first validation; the outcome is the same.

    Args:
        environ: the environment; None: that of the process.
        **settings: settings by name, as with `update`.

    Raises:
        SettingsError, UnsupportedTransport: as `update`.
    """

    __slots__ = (
        "_added_defaults",
        "_arguments",
        "_cached",
        "_configs",
        "_environ",
        "_generation",
        "_loading",
        "_lock",
    )

    _arguments: dict[str, object]
    _configs: list[ConfigSource]
    _added_defaults: list[Defaults]
    _environ: Mapping[str, str] | None
    _generation: int
    _cached: Settings | None
    _loading: set[int]
    _lock: threading.Lock

    def __init__(self, *, environ: Mapping[str, str] | None = None, **settings: object) -> None:
        put = object.__setattr__
        put(self, "_arguments", {})
        put(self, "_configs", [])
        put(self, "_added_defaults", [])
        put(self, "_environ", environ)
        put(self, "_generation", 0)
        put(self, "_cached", None)
        put(self, "_loading", set())
        put(self, "_lock", threading.Lock())
        written = Written(settings)
        del settings
        self.update(written)

    @property
    def generation(self) -> int:
        """Grows with each write: whoever derived something from the settings sees whether it is stale."""
        return self._generation

    def settings(self) -> Settings:
        """All settings, validated.

        Raises:
            SettingsError: one or several are wrong, or a config object cannot be loaded; all faults are listed.
            UnsupportedTransport: the only fault is a broker URL of a scheme that no transport serves.
        """
        cached = self._cached
        if cached is not None:
            return cached
        generation = self._generation
        gathered = self._gathered()
        from amqp_tasks.settings._resolve import validate

        outcome = validate(gathered.reading)
        if outcome.settings is None:
            raise outcome.error from gathered.cause
        with self._lock:
            # Written meanwhile: what was validated is right for this caller, but not to be kept.
            if generation == self._generation:
                object.__setattr__(self, "_cached", outcome.settings)
        return outcome.settings

    def update(self, *values: Mapping[str, object], **settings: object) -> None:
        """Set several settings; a later write of the same setting wins.

        Names and values are checked here, and of combinations those whose settings are all in this call: others may be
        mended by a later write or by another source, and are told when settings are read. An iterator is read to its end.

        Raises:
            SettingsError: unknown names, wrong values, or old upper-case and new names in one call; all faults are
                listed, and nothing has changed.
            UnsupportedTransport: likewise, as `settings`.
        """
        written = Written(
            {str(name): value for mapping in values for name, value in mapping.items()} | settings
        )
        # The frames of a traceback must not hold values: error reports show them, passwords included.
        del values, settings
        if not written:
            return
        if not is_right(written):
            from amqp_tasks.settings._gather import check_written

            outcome = check_written(written)
            if outcome.settings is None:
                raise outcome.error
        with self._lock:
            for name, value in written.items():
                # Taken out first, so that the order of the dict is the order of writing.
                self._arguments.pop(name, None)
                self._arguments[name] = value
            self._changed()

    def config_from_object(
        self, source: object, *, namespace: str | None = None, force: bool = False
    ) -> None:
        """Take settings from a module, class, instance or mapping; read when a setting is first needed.

        Of a module, class or instance the lower-case attributes are settings, or Celery's old upper-case ones; with a
        namespace only those with that prefix (`CELERY_TASK_ROUTES`). Called again, the later object wins over the
        earlier one, setting by setting.

        Args:
            source: the object, or its name: `package.module` or `package.module:attribute`.
            namespace: prefix of Django style, e.g. `CELERY`.
            force: read and validate now.

        Raises:
            SettingsError: with `force`, as `settings`.
        """
        with self._lock:
            self._configs.append((source, namespace))
            self._changed()
        if force:
            self.settings()

    def add_defaults(self, defaults: Defaults) -> None:
        """Set defaults that every other source wins over.

        Args:
            defaults: a mapping, or a callable that gives one and is called when settings are read.
        """
        with self._lock:
            self._added_defaults.append(defaults)
            self._changed()

    def origin(self, name: str) -> Origin:
        """Where the value of a setting comes from; settings need not be valid for this.

        Raises:
            KeyError: there is no setting of that name.
        """
        from amqp_tasks.settings._sources import Level, Origin

        given = self._gathered().reading.given.get(_known_name(name))
        return Origin(Level.DEFAULT) if given is None else given.origin

    def as_dict(self, *, masked: bool = True, with_defaults: bool = True) -> dict[str, Any]:
        """All settings by flat name as plain data: texts, numbers, lists, dicts.

        Args:
            masked: passwords show as `**`; False is for handing settings to another program.
            with_defaults: False leaves out what no source set.

        Raises:
            SettingsError: as `settings`.
        """
        from amqp_tasks.settings._plain import plain

        settings = self.settings()
        names = _fields() if with_defaults else self._gathered().reading.given
        return {name: plain(settings.get(name), masked=masked) for name in names}

    def table(self, *, with_defaults: bool = False) -> dict[str, Any]:
        """As `as_dict`, masked; Celery's name for it.

        Raises:
            SettingsError: as `settings`.
        """
        return self.as_dict(masked=True, with_defaults=with_defaults)

    def humanize(self, *, with_defaults: bool = False) -> str:
        """A line per setting, masked.

        Raises:
            SettingsError: as `settings`.
        """
        return "\n".join(
            f"{name}: {value}" for name, value in self.table(with_defaults=with_defaults).items()
        )

    # Values differ by setting, so that their static type is Any; `settings()` is the typed way.
    def get(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or `default` when there is no setting of that name.

        Raises:
            SettingsError: as `settings`.
        """
        try:
            flat_name = _known_name(name)
        except KeyError:
            return default
        return self.settings().get(flat_name)

    def keys(self) -> Iterable[str]:
        """All flat names."""
        return tuple(_fields())

    def __getitem__(self, name: str) -> Any:
        flat_name = _known_name(name)
        return self.settings().get(flat_name)

    def __setitem__(self, name: str, value: object) -> None:
        written = Written({name: value})
        del value
        self.update(written)

    def __delitem__(self, name: str) -> None:
        flat_name = _known_name(name)
        with self._lock:
            written = [given for given in self._arguments if _flat_name(given) == flat_name]
            for given in written:
                del self._arguments[given]
            self._changed()
        if not written:
            raise KeyError(f"{name} was not set on conf; values from other sources cannot be deleted here")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _flat_name(name) in _fields()

    def __iter__(self) -> Iterator[str]:
        return iter(_fields())

    def __len__(self) -> int:
        return len(_fields())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as exc:
            raise AttributeError(exc.args[0], name=name, obj=self) from exc

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            raise AttributeError(f"{name!r} is not a setting, and conf has no other attributes to set")
        written = Written({name: value})
        del value
        self.update(written)

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError as exc:
            raise AttributeError(exc.args[0]) from exc

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *_fields()})

    def __repr__(self) -> str:
        return f"<Conf: {len(self._arguments)} set, {len(self._configs)} config objects, generation {self._generation}>"

    def _changed(self) -> None:
        """Forget what was validated. The lock is held."""
        object.__setattr__(self, "_generation", self._generation + 1)
        object.__setattr__(self, "_cached", None)

    def _gathered(self) -> Gathered:
        """What all sources say at this moment."""
        from amqp_tasks.settings._gather import gather

        with self._lock:
            arguments = dict(self._arguments)
            configs, added = tuple(self._configs), tuple(self._added_defaults)
        environ = os.environ if self._environ is None else self._environ
        return gather(arguments, environ, configs, added, loading=self._loading)


def _fields() -> Mapping[str, object]:
    from amqp_tasks.settings._models import FIELDS

    return FIELDS


def _flat_name(name: str) -> str:
    """Today's name of a setting, whichever way it is written; unknown names as they are."""
    from amqp_tasks.settings._names import ALIASES, old_names

    if name.isupper():
        return old_names(_fields()).get(name, name)
    return ALIASES.get(name, name)


def _known_name(name: str) -> str:
    flat_name = _flat_name(name)
    if flat_name in _fields():
        return flat_name
    from amqp_tasks.settings._names import UNSUPPORTED, did_you_mean

    if flat_name in UNSUPPORTED:
        raise KeyError(f"{name}: {UNSUPPORTED[flat_name]}")
    near = did_you_mean(name, _fields())
    raise KeyError(f"unknown setting {name!r}" + (f", did you mean {near!r}?" if near else ""))
