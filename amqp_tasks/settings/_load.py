"""Config objects: found by name or given, and their attributes taken out."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import cast

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.settings._secrets import mask_secrets

__all__ = ("load_source",)

_CACHED = type(lru_cache(len))
_CODE = (
    ModuleType,
    type,
    property,
    staticmethod,
    classmethod,
    FunctionType,
    _CACHED,
    MethodType,
    BuiltinFunctionType,
    *(
        WrapperDescriptorType,
        MethodWrapperType,
        MethodDescriptorType,
        ClassMethodDescriptorType,
        GetSetDescriptorType,
    ),
)
"""Types of attributes that are a module's or class's working parts and not data."""
_CODE_MODULES = ("__future__", "typing")
"""Modules whose objects are such parts, too: `annotations`, `Optional`, a `TypeVar`."""
_MISSING = object()


def load_source(source: object) -> tuple[str, Mapping[str, object], bool]:
    """The name, the attributes and whether all of them are meant as settings, of a config object.

    Args:
        source: a module's name, `module:attribute`, a module, a class, an instance or a mapping.

    Raises:
        ConfigurationError: there is no such module or attribute, or importing or reading it failed; the cause is
            chained.
    """
    try:
        return _load(source)
    except ConfigurationError:
        raise
    except Exception as exc:
        # An object that makes its attributes up runs the user's code when it is looked at, as Django's settings do.
        label = source if type(source) is str else type(source).__name__
        raise ConfigurationError(_failed(label, exc, "reading")) from exc


def _load(source: object) -> tuple[str, Mapping[str, object], bool]:
    label = ""
    if isinstance(source, str):
        label, source = source, _import(source)
    if isinstance(source, Mapping):
        return (
            label or "dict",
            {str(name): value for name, value in cast("Mapping[object, object]", source).items()},
            True,
        )
    return label or _label(source), dict(_attributes(source)), False


def _label(source: object) -> str:
    named = source if isinstance(source, (type, ModuleType)) else type(source)
    return named.__name__


def _attributes(source: object) -> Iterator[tuple[str, object]]:
    for name in dir(source):
        if name.startswith("_") or not (name.isupper() or _is_plain(source, name)):
            continue
        yield name, getattr(source, name)


def _is_plain(source: object, name: str) -> bool:
    """Whether a lower-case attribute is data of its own: not a module, function or class that was imported there, not a
    method or property, and not what an object makes up when asked (as Django's settings do)."""
    value: object = inspect.getattr_static(source, name, _MISSING)
    is_code = isinstance(value, _CODE) or type(value).__module__ in _CODE_MODULES
    if isinstance(value, (FunctionType, _CACHED)) and isinstance(source, ModuleType):
        # `def task_routes(...)` in a config module is a router; a helper under another name is the module's own.
        return name in ("task_routes", "task_annotations")
    return value is not _MISSING and not is_code


def _import(name: str) -> object:
    module_name, _, attribute = name.partition(":")
    module = _import_module(module_name, name)
    for part in filter(None, attribute.split(".")):
        try:
            module = getattr(module, part)
        except AttributeError as exc:
            raise ConfigurationError(
                f"config {name!r}: module {module_name!r} has no attribute {part!r}"
            ) from exc
    return module


def _import_module(module_name: str, name: str) -> object:
    try:
        return _import_from_here(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise ConfigurationError(_failed(name, exc)) from exc
        return _import_parent(module_name, name, exc)
    except Exception as exc:  # a config module is the user's code and may raise anything
        raise ConfigurationError(_failed(name, exc)) from exc


def _import_parent(module_name: str, name: str, missing: ModuleNotFoundError) -> object:
    """`package.module.Class` without a colon, as Celery takes it."""
    parent, _, attribute = module_name.rpartition(".")
    if parent and missing.name == module_name:
        found = getattr(_import_module(parent, name), attribute, None)
        if found is not None:
            return found
    raise ConfigurationError(
        f"config {name!r}: there is no module {missing.name!r}; it must lie in the current directory or on PYTHONPATH"
    ) from missing


def _import_from_here(module_name: str) -> ModuleType:
    """Import with the current directory on the path, as `-A` does."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        return importlib.import_module(module_name)
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    finally:
        sys.path.remove(here)


def _failed(name: str, exc: Exception, doing: str = "importing") -> str:
    trace, where = exc.__traceback__, ""
    while trace is not None:
        where = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    said = mask_secrets(str(exc)).replace("\n", " ")
    return f"config {name!r}: {doing} it raised {type(exc).__name__}: {said}{where}"
