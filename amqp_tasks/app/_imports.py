"""Importing modules with tasks, and telling a module that is missing from one that is broken."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable

from amqp_tasks.errors import ConfigurationError

__all__ = ("import_named", "import_related")


def import_named(module_names: Iterable[str]) -> None:
    """Import modules that the settings name.

    Raises:
        ConfigurationError: one does not exist. An error raised inside of one passes through as it is.
    """
    for name in module_names:
        _import(name, f"module {name!r} (from include or imports)")


def _import(name: str, what: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if not is_missing(name, exc):
            raise
        raise ConfigurationError(
            f"{what} not found: {exc}; imports are relative to the directory the process was started in"
        ) from exc


def import_related(packages: Iterable[str], related_name: str) -> None:
    """Import `<package>.<related_name>` of each package that has one.

    Raises:
        ConfigurationError: a package does not exist. An error raised inside of a module passes through.
    """
    for package in packages:
        _import(package, f"package {package!r} (of autodiscover_tasks)")
        if importlib.util.find_spec(package).submodule_search_locations is None:  # type: ignore[union-attr]
            continue
        name = f"{package}.{related_name}"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)


def is_missing(module_name: str, error: ModuleNotFoundError) -> bool:
    """Whether `error` says that `module_name` or a parent of it does not exist, and not something it imports."""
    missing = error.name
    return missing is not None and (module_name == missing or module_name.startswith(f"{missing}."))
