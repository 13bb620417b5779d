"""Finding the app that a command line means: Celery's `-A` rules, AMQP_TASKS_APP and pyproject.toml."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from amqp_tasks.app._app import App
from amqp_tasks.errors import AppNotFound

__all__ = ("ENVIRONMENT_NAME", "configured_spec", "find_app")

ENVIRONMENT_NAME = "AMQP_TASKS_APP"

_HOW = (
    'give -A module, -A module:attribute, set AMQP_TASKS_APP, or write app = "proj" under [tool.amqp-tasks] '
    "in the pyproject.toml of this directory"
)


_CELERYS = (
    "is an app of Celery's, which this cannot run: make it one of ours with `from amqp_tasks import App`; see "
    "how-to/migrate-from-celery in the documentation"
)


def find_app(spec: str | None = None) -> App:
    """The app that `spec` names; the current directory is importable from then on.

    `module.path:attribute` is exact, and so is `module.path.attribute` where no module has that name. For `proj`, the
    first of: `proj.app`, `proj.celery`, any app in the module `proj`; then the same in the submodule `proj.celery`.

    Args:
        spec: as after `-A`; None takes AMQP_TASKS_APP, then `[tool.amqp-tasks] app` in ./pyproject.toml.

    Raises:
        AppNotFound: nothing is named, the module does not exist, or holds no app. An error raised inside of the
            module passes through as it is, with its own traceback.

    See: Celery's `find_app`, whose order of rules this keeps.
    """
    chosen = spec or configured_spec()
    if not chosen:
        raise AppNotFound(f"no app named: {_HOW}")
    _make_importable(Path.cwd())
    module_name, _, attribute = chosen.partition(":")
    if not attribute and _is_attribute(module_name):
        module_name, _, attribute = module_name.rpartition(".")
    module = _import(module_name, chosen)
    if attribute:
        return _exact(module, attribute, chosen)
    found = _app_in(module) or _app_in_submodule(module)
    if found is None:
        _refuse_celerys(module)
        raise AppNotFound(
            f"no App in module {module_name!r} (looked for app, celery, any App, {module_name}.celery): "
            "name where it is, as module:attribute"
        )
    return found


def configured_spec(directory: Path | None = None) -> str | None:
    """What names the app when `-A` is absent: AMQP_TASKS_APP, else pyproject.toml in `directory` (default: here).

    Raises:
        AppNotFound: the pyproject.toml cannot be read, or what it holds in the place of `app` is something else.
    """
    from_environment = os.environ.get(ENVIRONMENT_NAME)
    if from_environment:
        return from_environment
    path = (directory or Path.cwd()) / "pyproject.toml"
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise AppNotFound(f"cannot read {path}: {exc}") from exc
    spec = _table(path, _table(path, data, "tool"), "amqp-tasks", "tool.").get("app")
    if spec is not None and not isinstance(spec, str):
        raise AppNotFound(
            f'{path}: [tool.amqp-tasks] app must be text like "proj", got {type(spec).__name__}'
        )
    return spec


def _table(path: Path, parent: dict[str, Any], name: str, prefix: str = "") -> dict[str, Any]:
    found = parent.get(name, {})
    if not isinstance(found, dict):
        raise AppNotFound(
            f'{path}: [{prefix}{name}] must be a table such as [tool.amqp-tasks] with app = "proj", got {type(found).__name__}'
        )
    return cast("dict[str, Any]", found)


def _make_importable(directory: Path) -> None:
    if str(directory) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(directory))


def _is_attribute(dotted: str) -> bool:
    """Whether the last word of `main.celery` is no module but something that the module `main` holds."""
    parent, _, name = dotted.rpartition(".")
    if not parent:
        return False
    module = _import(parent, dotted)
    try:
        return hasattr(module, name) and importlib.util.find_spec(dotted) is None
    except ModuleNotFoundError:
        return True  # the parent is no package


def _import(module_name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # Only the absence of the very module that was asked for is ours to report; everything else happened
        # inside of it and is shown as it is.
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise AppNotFound(
                f"module {exc.name!r} (from {spec!r}) not found, looked in {Path.cwd()} and sys.path: {_HOW}"
            ) from exc
        raise


def _exact(module: ModuleType, attribute: str, spec: str) -> App:
    target: Any = module
    for name in attribute.split("."):
        try:
            target = getattr(target, name)
        except AttributeError as exc:
            raise AppNotFound(f"{spec!r}: {module.__name__!r} has no attribute {name!r}") from exc
    if isinstance(target, ModuleType):
        found = _app_in(target)
        if found is not None:
            return found
        _refuse_celerys(target)
    if not isinstance(target, App):
        if _is_celerys(target):
            raise AppNotFound(f"{spec!r} {_CELERYS}")
        raise AppNotFound(
            f"{spec!r} is of type {type(target).__name__}, not an App: name one, as module:attribute"
        )
    return target


def _app_in(module: ModuleType) -> App | None:
    for name in ("app", "celery"):
        candidate = getattr(module, name, None)
        if isinstance(candidate, App):
            return candidate
    return next((value for value in vars(module).values() if isinstance(value, App)), None)


def _app_in_submodule(module: ModuleType) -> App | None:
    if not hasattr(module, "__path__"):
        return None
    name = f"{module.__name__}.celery"
    if importlib.util.find_spec(name) is None:
        return None
    return _app_in(importlib.import_module(name))


def _refuse_celerys(module: ModuleType) -> None:
    """Refuse a module without an App that has one of Celery's, itself or in its submodule `celery`."""
    for each in (module, sys.modules.get(f"{module.__name__}.celery", module)):
        for name, value in vars(each).items():
            if _is_celerys(value):
                raise AppNotFound(f"{name!r} in module {each.__name__!r} {_CELERYS}")


def _is_celerys(value: object) -> bool:
    """Whether it is a `celery.Celery`. By the names of its classes: who has none has not imported Celery, and we do not."""
    classes = type(value).__mro__
    return any((each.__module__, each.__qualname__) == ("celery.app.base", "Celery") for each in classes)
