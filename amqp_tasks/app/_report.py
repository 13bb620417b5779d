"""Text for a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqp_tasks.app._app import App

__all__ = ("bugreport",)

_PACKAGES = ("amqp-tasks", "pika", "kombu", "pydantic")


def bugreport(app: App) -> str:
    """Versions and the settings that were changed, secrets masked."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name)}" for name in _PACKAGES]
    lines += [f"{name}: {value!r}" for name, value in app.conf.table().items()]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
